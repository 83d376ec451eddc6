// SPDX-License-Identifier: Apache-2.0
#include "shared_turns.h"

#include <cerrno>
#include <chrono>
#include <thread>

#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kSpins = 4000;
constexpr int kSpinsOversubscribed = 20;
constexpr int kYields = 2000;
constexpr auto kLongestSleep = std::chrono::microseconds(500);
constexpr auto kAliveEvery = std::chrono::seconds(1);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

SharedTurns::SharedTurns(std::vector<TurnLine*> lines,
                         int rank,
                         bool oversubscribed,
                         std::string group)
    : lines_(std::move(lines)),
      rank_(rank),
      spins_(oversubscribed ? kSpinsOversubscribed : kSpins),
      group_(std::move(group)) {
  lines_[rank_]->pid.store(getpid(), std::memory_order_relaxed);
}

void SharedTurns::pass(uint64_t tag) {
  const int parity = static_cast<int>(turn_ % 2);
  lines_[rank_]->tag[parity].store(tag, std::memory_order_relaxed);
  ++turn_;
  lines_[rank_]->turn.store(turn_, std::memory_order_release);
  for (int peer = 0; peer < static_cast<int>(lines_.size()); ++peer) {
    wait_for(peer);
    if (lines_[peer]->tag[parity].load(std::memory_order_relaxed) != tag) {
      throw core::Error(
          core::ErrorKind::Comm,
          {.where = "comm.shared_group",
           .what = fmt::format("ranks {} and {} of group {} are in different collectives "
                               "or pass different sizes",
                               rank_,
                               peer,
                               group_)});
    }
  }
}

void SharedTurns::wait_for(int peer) const {
  const std::atomic<uint64_t>& turn = lines_[peer]->turn;
  const auto here = [&] { return turn.load(std::memory_order_acquire) >= turn_; };
  for (int i = 0; i < spins_; ++i) {
    if (here()) {
      return;
    }
    relax();
  }
  for (int i = 0; i < kYields; ++i) {  // ranks may share a core: let the late one run
    if (here()) {
      return;
    }
    sched_yield();
  }
  auto nap = std::chrono::microseconds(20);
  auto checked = Clock::now();
  while (!here()) {
    std::this_thread::sleep_for(nap);
    nap = std::min<std::chrono::microseconds>(nap * 2, kLongestSleep);
    if (Clock::now() - checked > kAliveEvery) {
      checked = Clock::now();
      if (!here()) {
        check_alive(peer);
      }
    }
  }
}

void SharedTurns::check_alive(int peer) const {
  const pid_t pid = lines_[peer]->pid.load(std::memory_order_relaxed);
  if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH) {
    throw core::Error(
        core::ErrorKind::Comm,
        {.where = "comm.shared_group",
         .what = fmt::format("rank {} of group {} (pid {}) is gone while rank {} waits for it",
                             peer,
                             group_,
                             pid,
                             rank_)});
  }
}

}  // namespace kamerton::comm
