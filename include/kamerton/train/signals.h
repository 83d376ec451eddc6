// SPDX-License-Identifier: Apache-2.0
// A scheduler's wish that the run ends: noticed at once, obeyed at the next step boundary.
#pragma once

namespace kamerton::train {

/// From now on SIGTERM and SIGUSR1 set a flag instead of ending the process. The handler does
/// nothing else.
void catch_stop_signals();

/// The signal that arrived on this rank since the last call of catch_stop_signals(), or 0. Ranks
/// may differ: agree by a collective.
int stop_signal();

}  // namespace kamerton::train
