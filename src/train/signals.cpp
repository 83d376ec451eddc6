// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/signals.h"

#include <csignal>

namespace kamerton::train {
namespace {

volatile std::sig_atomic_t received = 0;

void note(int signal) {
  received = signal;
}

}  // namespace

void catch_stop_signals() {
  received = 0;
  struct sigaction action = {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;  // system calls under way (a save, a collective) go on
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
}

int stop_signal() {
  return received;
}

}  // namespace kamerton::train
