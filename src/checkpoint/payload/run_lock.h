// SPDX-License-Identifier: Apache-2.0
// One run at a time writes into a folder of checkpoints. File locks are not used: they fail on
// network file systems.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace kamerton::checkpoint {

/// The file <root>/.lock, made in one step, with the holder's pid, start time, host, boot id and
/// owner. Rank 0 only.
class RunLock {
 public:
  /// Takes the lock, or throws Output naming the holder. A lock is taken over, with a warning, when
  /// its holder is gone: same host and no such process, same host before a reboot, same owner (a
  /// job that was requeued elsewhere), or another host that has not renewed it for lease_s seconds.
  RunLock(const std::filesystem::path& root, const std::string& owner, int64_t lease_s);
  /// Removes the lock if it is still ours.
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  /// Throws Output when another run has taken over; else extends the lease.
  void renew();

 private:
  std::filesystem::path path_;
  std::string text_;
};

}  // namespace kamerton::checkpoint
