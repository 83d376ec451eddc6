// SPDX-License-Identifier: Apache-2.0
#include "nccl_comm.h"

#include <chrono>
#include <thread>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"

#include "nccl_check.h"

namespace kamerton::comm {
namespace {

ncclUniqueId agree_on_id(GroupImpl& host) {
  ncclUniqueId id{};
  int64_t made = 1;
  if (host.identity().rank == 0) {
    made = ncclGetUniqueId(&id) == ncclSuccess
               ? 1
               : 0;  // told to the peers: they wait in the broadcast
  }
  at::Tensor made_tensor = at::from_blob(&made, {1}, at::kLong);
  host.broadcast(made_tensor, 0);
  at::Tensor bytes = at::from_blob(&id, {static_cast<int64_t>(sizeof id)}, at::kByte);
  host.broadcast(bytes, 0);
  if (made == 0) {
    throw core::Error(core::ErrorKind::Comm,
                      {.where = "comm.nccl", .what = "rank 0 got no id from NCCL"});
  }
  return id;
}

}  // namespace

NcclComm::NcclComm(GroupImpl& host, double deadline_s)
    : deadline_s_(deadline_s > 0 ? deadline_s : 600) {
  const ncclUniqueId id = agree_on_id(host);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const Identity& self = host.identity();
  settle(ncclCommInitRankConfig(&comm_, self.size, id, self.rank, &config));
}

NcclComm::~NcclComm() {
  abort();
}  // ncclCommDestroy could block for ever when a peer is lost

void NcclComm::settle(ncclResult_t called) {
  nccl_check(called);
  const auto give_up =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(deadline_s_);
  ncclResult_t state = called;
  while (true) {
    nccl_check(ncclCommGetAsyncError(comm_, &state));
    if (state != ncclInProgress) {
      break;
    }
    if (std::chrono::steady_clock::now() > give_up) {
      abort();
      throw core::Error(core::ErrorKind::Comm,
                        {.where = "comm.nccl",
                         .what = "a peer did not come in time",
                         .got = fmt::format("nothing for {} s", deadline_s_)});
    }
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  nccl_check(state);
}

const char* NcclComm::failure() {
  const std::lock_guard lock(mutex_);
  ncclResult_t state = ncclSuccess;
  if (aborted_ || comm_ == nullptr) {
    return nullptr;
  }
  if (ncclCommGetAsyncError(comm_, &state) != ncclSuccess) {
    return "the communicator does not answer";
  }
  return state == ncclSuccess || state == ncclInProgress ? nullptr : ncclGetErrorString(state);
}

void NcclComm::abort() {
  const std::lock_guard lock(mutex_);
  if (!aborted_ && comm_ != nullptr) {
    aborted_ = true;
    ncclCommAbort(comm_);
  }
}

}  // namespace kamerton::comm
