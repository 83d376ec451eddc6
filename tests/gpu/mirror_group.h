// SPDX-License-Identifier: Apache-2.0
// Rank 0 of a group of two whose other rank is its mirror image: stages 1 to 3 run in full on one
// device. What is learnt is of no use, but the same on every device.
#pragma once

#include <memory>

#include <ATen/ATen.h>

#include "group_impl.h"

namespace kamerton::test {

class MirrorGroup final : public comm::GroupImpl {
 public:
  explicit MirrorGroup(uint64_t id = 1)
      : GroupImpl({.rank = 0, .size = 2, .name = "mirror", .id = id}) {}

  bool takes(c10::Device) const override { return true; }
  void barrier() override {}
  void all_reduce(at::Tensor& tensor, comm::Reduce op) override {
    if (op == comm::Reduce::Sum) {
      tensor.mul_(2);
    }
  }
  void reduce_scatter(const at::Tensor& input, at::Tensor& output, comm::Reduce op) override {
    output.view(-1).copy_(input.view(-1).narrow(0, 0, output.numel()));
    all_reduce(output, op);
  }
  void all_gather(const at::Tensor& input, at::Tensor& output) override {
    const at::Tensor own = input.view(-1).clone();  // may lie in the output
    output.view(-1).copy_(at::cat({own, own}));
  }
  void broadcast(at::Tensor&, int) override {}
  void all_to_all(const at::Tensor& input, at::Tensor& output) override {
    all_gather(input.view(-1).narrow(0, 0, input.numel() / 2), output);
  }
  std::shared_ptr<GroupImpl> split(int color, int, const std::string&) override {
    return std::make_shared<MirrorGroup>(child_id(color));
  }
};

}  // namespace kamerton::test
