// SPDX-License-Identifier: Apache-2.0
#include "shared_turns.h"

#include <cerrno>
#include <chrono>
#include <climits>
#include <ctime>

#include <fmt/format.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kSpins = 4000;
constexpr int kSpinsOversubscribed = 20;
constexpr auto kAliveEvery = std::chrono::seconds(1);
constexpr timespec kNap{.tv_sec = 0, .tv_nsec = 100'000'000};

/// Sleeps while *word == seen, at most kNap. The memory is shared between processes.
void futex_wait(std::atomic<uint32_t>& word, uint32_t seen) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, seen, &kNap, nullptr, 0);
}
void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

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
  ring();
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
  // A sleeper is woken at once, even on a crowded node; one that yields or polls has used up its
  // time by then.
  TurnLine& line = *lines_[peer];
  auto checked = Clock::now();
  while (true) {
    const uint32_t seen = line.bell.load();
    line.sleepers.fetch_add(1);
    if (!here()) {
      futex_wait(line.bell, seen);
    }
    line.sleepers.fetch_sub(1);
    if (here()) {
      return;
    }
    if (Clock::now() - checked > kAliveEvery) {
      checked = Clock::now();
      check_alive(peer);
    }
  }
}

void SharedTurns::ring() const {
  TurnLine& line = *lines_[rank_];
  line.bell.fetch_add(1);  // sequentially consistent with sleepers: no sleeper misses its bell
  if (line.sleepers.load() > 0) {
    futex_wake_all(line.bell);
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
