// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/signal_thread.h"

#include <csignal>
#include <mutex>

#include <pthread.h>
#include <unistd.h>

namespace kamerton::core {
namespace {

/// All but those that a thread causes itself.
sigset_t signals_from_outside() {
  sigset_t set;
  sigfillset(&set);
  for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGPIPE}) {
    sigdelset(&set, own);
  }
  return set;
}

void* take_signals(void*) {
  const sigset_t set = signals_from_outside();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  while (true) {
    pause();
  }
}

}  // namespace

void start_signal_thread() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_t thread = {};
    if (pthread_create(&thread, nullptr, take_signals, nullptr) != 0) {
      return;  // signals must go somewhere: they stay where they are
    }
    pthread_detach(thread);
    const sigset_t set = signals_from_outside();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
  });
}

}  // namespace kamerton::core
