// SPDX-License-Identifier: Apache-2.0
// The clock of a shared-memory group: all ranks take turn t together.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace kamerton::comm {

/// What a rank shows its peers; lies in shared memory, written by its owner alone.
struct alignas(64) TurnLine {
  std::atomic<uint64_t> turn;      ///< turns this rank has reached
  std::atomic<uint64_t> tag[2];    ///< what it does in the turn, by parity
  std::atomic<uint32_t> bell;      ///< changes with every turn: what sleepers watch (futex)
  std::atomic<uint32_t> sleepers;  ///< peers that sleep until this rank's next turn
  std::atomic<int32_t> pid;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

/// Memory written before pass() of turn t is readable by the peers after their pass() of t, until
/// they pass t + 1. So a buffer of parity t % 2 may be written again once pass(t + 1) has returned:
/// two buffers, one barrier a turn.
class SharedTurns {
 public:
  /// `lines[r]` is rank r's line. Writes this rank's pid.
  SharedTurns(std::vector<TurnLine*> lines, int rank, bool oversubscribed, std::string group);

  /// The buffer to use in the coming turn.
  int parity() const { return static_cast<int>(turn_ % 2); }
  /// Waits for all ranks. Throws ErrorKind::Comm when they do not all bring the same tag (they are
  /// in different collectives, or pass different sizes), or when a peer's process is gone.
  void pass(uint64_t tag);

 private:
  void ring() const;
  void wait_for(int peer) const;
  void check_alive(int peer) const;

  std::vector<TurnLine*> lines_;
  int rank_;
  int spins_;
  std::string group_;
  uint64_t turn_ = 0;
};

}  // namespace kamerton::comm
