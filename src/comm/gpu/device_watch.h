// SPDX-License-Identifier: Apache-2.0
// Device collectives return before they are done; this thread sees to it that they end.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <cuda_runtime_api.h>

#include "nccl_comm.h"
#include "recorder.h"

namespace kamerton::comm {

/// Polls events and the communicators' state. On a failure or past the deadline: aborts the
/// communicators (so that the device is free again) and tells the recorder, which ends the job.
class DeviceWatch {
 public:
  DeviceWatch(std::vector<std::shared_ptr<NcclComm>> comms,
              std::shared_ptr<Recorder> recorder,
              double deadline_s);
  ~DeviceWatch();
  DeviceWatch(const DeviceWatch&) = delete;
  DeviceWatch& operator=(const DeviceWatch&) = delete;

  /// Watches what was enqueued on `stream` so far; `what` names it in a message.
  void add(cudaStream_t stream, std::string what);

 private:
  struct Pending {
    cudaEvent_t event = nullptr;
    std::string what;
    std::chrono::steady_clock::time_point begin;
  };
  void run();
  /// Text of a failure, empty when all is well. With the lock held.
  std::string look();

  std::vector<std::shared_ptr<NcclComm>> comms_;
  std::shared_ptr<Recorder> recorder_;
  double deadline_s_;
  int device_ = 0;
  std::mutex mutex_;  ///< guards what follows
  std::condition_variable wake_;
  std::deque<Pending> pending_;
  std::vector<cudaEvent_t> spare_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace kamerton::comm
