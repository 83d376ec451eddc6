// SPDX-License-Identifier: Apache-2.0
#include "device_watch.h"

#include <fmt/format.h>

#include "nccl_check.h"

namespace kamerton::comm {

DeviceWatch::DeviceWatch(std::vector<std::shared_ptr<NcclComm>> comms,
                         std::shared_ptr<Recorder> recorder,
                         double deadline_s)
    : comms_(std::move(comms)), recorder_(std::move(recorder)), deadline_s_(deadline_s) {
  cuda_check(cudaGetDevice(&device_));
  thread_ = std::thread([this] { run(); });
}

DeviceWatch::~DeviceWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_all();
  }
  thread_.join();
  for (const Pending& item : pending_) {
    cudaEventDestroy(item.event);
  }
  for (cudaEvent_t event : spare_) {
    cudaEventDestroy(event);
  }
}

void DeviceWatch::add(cudaStream_t stream, std::string what) {
  const std::lock_guard lock(mutex_);
  Pending item{
      .event = nullptr, .what = std::move(what), .begin = std::chrono::steady_clock::now()};
  if (spare_.empty()) {
    cuda_check(cudaEventCreateWithFlags(&item.event, cudaEventDisableTiming));
  } else {
    item.event = spare_.back();
    spare_.pop_back();
  }
  cuda_check(cudaEventRecord(item.event, stream));
  pending_.push_back(std::move(item));
}

std::string DeviceWatch::look() {
  for (const auto& comm : comms_) {
    if (const char* failure = comm->failure(); failure != nullptr) {
      return fmt::format("NCCL reports: {}", failure);
    }
  }
  while (!pending_.empty()) {
    const cudaError_t state = cudaEventQuery(pending_.front().event);
    if (state == cudaErrorNotReady) {
      break;
    }
    if (state != cudaSuccess) {
      return fmt::format(
          "{} failed on the device: {}", pending_.front().what, cudaGetErrorString(state));
    }
    spare_.push_back(pending_.front().event);
    pending_.pop_front();
  }
  if (pending_.empty() || deadline_s_ <= 0) {
    return "";
  }
  const double age =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - pending_.front().begin)
          .count();
  return age > deadline_s_
             ? fmt::format(
                   "{} has not ended on the device for {:.0f} s", pending_.front().what, age)
             : "";
}

void DeviceWatch::run() {
  cudaSetDevice(device_);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const std::string failure = look();
    if (!failure.empty()) {
      for (const auto& comm : comms_) {
        comm->abort();
      }
      pending_.clear();
      if (recorder_) {
        lock.unlock();
        recorder_->fail(failure);
        lock.lock();
      }
      return;
    }
    wake_.wait_for(lock, std::chrono::milliseconds(100));
  }
}

}  // namespace kamerton::comm
