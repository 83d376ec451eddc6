// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/signal_thread.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <thread>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace kamerton::core {
namespace {

std::atomic<int> g_taken = 0;
std::atomic<int> g_interrupted = 0;  // threads that compute, or that started them
thread_local bool t_computes = false;

void on_signal(int) {
  ++g_taken;
  g_interrupted += t_computes ? 1 : 0;
}

/// How a process ends that does `work`: the mask of this one stays as it is.
int status_of(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(SignalThread, TakesWhatWouldInterruptThreadsThatCompute) {
  const int status = status_of([] {
    std::signal(SIGUSR1, on_signal);
    start_signal_thread();
    start_signal_thread();
    t_computes = true;
    std::atomic<bool> over = false;
    std::thread worker([&over] {
      t_computes = true;
      while (!over) {
      }
    });
    for (int i = 0; i < 100; ++i) {
      const int before = g_taken;
      kill(getpid(), SIGUSR1);
      while (g_taken == before) {
        std::this_thread::yield();
      }
    }
    over = true;
    worker.join();
    _exit(g_interrupted == 0 ? 3 : 4);
  });
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST(SignalThread, LetsSignalsEndTheProcess) {
  const int status = status_of([] {
    start_signal_thread();
    kill(getpid(), SIGTERM);
    std::this_thread::sleep_for(std::chrono::seconds(20));
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
}

}  // namespace
}  // namespace kamerton::core
