// SPDX-License-Identifier: Apache-2.0
// Which thread signals interrupt.
#pragma once

namespace kamerton::core {

/// Keeps signals from outside off the calling thread and off every thread that is started after it:
/// one thread that does nothing else takes them. Signals that end the process still end it, and
/// handlers run there. Needed because oneDNN's products run with the stack pointer in a heap buffer
/// (its issue 4845, in libtorch 2.11): a handler that interrupts one has its frame written over
/// the heap before it. Once a process, early and on the main thread; later calls do nothing.
void start_signal_thread();

}  // namespace kamerton::core
