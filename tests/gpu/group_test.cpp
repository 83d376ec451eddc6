// SPDX-License-Identifier: Apache-2.0
// NCCL at world size 1 (it refuses two ranks on one device), by the contract of every backend; and
// the memory figures.
#include <ATen/ATen.h>

#include "contract/group_contract.h"
#include "gpu_device.h"
#include "group_impl.h"

namespace kamerton::test {
namespace {

/// The contract's host tensors by way of the device.
class ByDevice final : public comm::GroupImpl {
 public:
  explicit ByDevice(std::shared_ptr<GroupImpl> inner)
      : GroupImpl(inner->identity()), inner_(std::move(inner)) {}

  bool takes(c10::Device device) const override { return device.is_cpu(); }
  void barrier() override { inner_->barrier(); }
  void all_reduce(at::Tensor& tensor, comm::Reduce op) override {
    at::Tensor there = tensor.to(at::kCUDA);
    inner_->all_reduce(there, op);
    tensor.copy_(there);
  }
  void reduce_scatter(const at::Tensor& input, at::Tensor& output, comm::Reduce op) override {
    at::Tensor there = output.to(at::kCUDA);
    inner_->reduce_scatter(input.to(at::kCUDA), there, op);
    output.copy_(there);
  }
  void all_gather(const at::Tensor& input, at::Tensor& output) override {
    at::Tensor there = output.to(at::kCUDA);
    inner_->all_gather(input.to(at::kCUDA), there);
    output.copy_(there);
  }
  comm::Work all_gather_async(const at::Tensor& input, at::Tensor& output) override {
    at::Tensor there = output.to(at::kCUDA);
    inner_->all_gather_async(input.to(at::kCUDA), there).wait();
    output.copy_(there);
    return {};
  }
  void broadcast(at::Tensor& tensor, int root) override {
    at::Tensor there = tensor.to(at::kCUDA);
    inner_->broadcast(there, root);
    tensor.copy_(there);
  }
  void all_to_all(const at::Tensor& input, at::Tensor& output) override {
    at::Tensor there = output.to(at::kCUDA);
    inner_->all_to_all(input.to(at::kCUDA), there);
    output.copy_(there);
  }
  std::shared_ptr<GroupImpl> split(int color, int key, const std::string& name) override {
    return std::make_shared<ByDevice>(inner_->split(color, key, name));
  }

 private:
  std::shared_ptr<GroupImpl> inner_;
};

class GpuGroup : public GpuTest {};

TEST_F(GpuGroup, KeepsTheContractOnTheDevice) {
  const comm::Group nccl = gpu()->group(comm::Group(), 60);
  const comm::Group group(std::make_shared<ByDevice>(nccl.impl()));
  contract::reduces_in_rank_order(group);
  contract::all_reduces_sizes_that_do_not_divide(group);
  contract::accumulates_16_bits_in_fp32(group);
  contract::works_in_place(group);
  contract::moves_data(group);
  contract::moves_scalars_and_strings(group);
}

TEST_F(GpuGroup, KeepsTheContractForHostTensors) {
  const comm::Group group = gpu()->group(comm::Group(), 60);
  contract::reduces_in_rank_order(group);
  contract::moves_data(group);
  contract::moves_scalars_and_strings(group);
}

TEST_F(GpuGroup, TheMemoryFiguresFollowTheTensors) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  { const at::Tensor warm = at::empty({16}, at::TensorOptions(device_)); }
  gpu()->reset_peak();
  const comm::GpuMemory before = gpu()->memory();
  { const at::Tensor held = at::empty({kBytes}, at::TensorOptions(device_).dtype(at::kByte)); }
  const comm::GpuMemory after = gpu()->memory();
  EXPECT_GE(after.peak_bytes - before.peak_bytes, kBytes);
  EXPECT_LT(after.peak_bytes - before.peak_bytes, kBytes + (int64_t{4} << 20));
  EXPECT_GT(after.total_bytes, after.free_bytes);
  gpu()->reset_peak();
  EXPECT_LT(gpu()->memory().peak_bytes, after.peak_bytes);
}

}  // namespace
}  // namespace kamerton::test
