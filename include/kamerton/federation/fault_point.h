// SPDX-License-Identifier: Apache-2.0
// Places where a test can end the process as a power cut would.
#pragma once

#include <string_view>
#include <vector>

namespace kamerton::federation {

/// All names, in the order in which a round reaches them.
const std::vector<std::string_view>& fault_points();

/// Kills the own process (SIGKILL) when KAMERTON_FEDERATION_FAULT is "NAME" or "NAME:N", the N-th
/// time (from 1) that this place is reached. Does nothing otherwise.
void fault_point(std::string_view name);

}  // namespace kamerton::federation
