// SPDX-License-Identifier: Apache-2.0
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include "gpu_backend.h"
#include "nccl_check.h"
#include "nccl_group.h"

namespace kamerton::comm {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

class CudaBackend final : public GpuBackend {
 public:
  void use_device(int index) override {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
  }

  GpuMemory memory() override {
    GpuMemory figures;
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    cuda_check(cudaMemGetInfo(&free_bytes, &total_bytes));
    figures.free_bytes = static_cast<int64_t>(free_bytes);
    figures.total_bytes = static_cast<int64_t>(total_bytes);
    if (allocator::get()->initialized()) {
      const auto stats = allocator::getDeviceStats(c10::cuda::current_device());
      figures.peak_bytes = stats.allocated_bytes[0].peak;  // 0: all pools together
    }
    return figures;
  }

  void reset_peak() override {
    if (allocator::get()->initialized()) {
      allocator::resetPeakStats(c10::cuda::current_device());
    }
  }

  std::shared_ptr<GroupImpl> make_group(std::shared_ptr<GroupImpl> host,
                                        double deadline_s) override {
    return make_nccl_group(std::move(host), deadline_s);
  }
};

}  // namespace
}  // namespace kamerton::comm

int kamerton_gpu_version() {
  return kamerton::comm::kGpuPluginVersion;
}
kamerton::comm::GpuBackend* kamerton_gpu_create() {
  return new kamerton::comm::CudaBackend;
}
