// SPDX-License-Identifier: Apache-2.0
// One NCCL communicator: non-blocking, with deadlines, aborted and never destroyed while something
// is under way.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include <nccl.h>

#include "group_impl.h"

namespace kamerton::comm {

class NcclComm {
 public:
  /// Collective over `host`: rank 0's id is broadcast there. Throws ErrorKind::Comm when the peers
  /// do not answer in time.
  NcclComm(GroupImpl& host, double deadline_s);
  ~NcclComm();
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  ncclComm_t get() const { return comm_; }
  /// Waits until NCCL has accepted what was called since; a peer that does not come is an error
  /// after the deadline.
  void settle(ncclResult_t called);
  /// The library's text when the communicator has failed, else null. Any thread.
  const char* failure();
  /// Ends everything under way. Any thread; later calls do nothing.
  void abort();

 private:
  ncclComm_t comm_ = nullptr;
  double deadline_s_;
  std::mutex mutex_;  ///< abort against failure()
  bool aborted_ = false;
};

}  // namespace kamerton::comm
