// SPDX-License-Identifier: Apache-2.0
// A flat tensor whose memory comes and goes while the tensors that view it stay.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/StorageImpl.h>

namespace kamerton::optim {

/// Autograd keeps tensors of a released unit alive between forward and backward. They share one
/// StorageImpl, so swapping its memory revives them all. Every view has a version counter of its
/// own: refilling is no modification to autograd.
class FlatBuffer {
 public:
  FlatBuffer() = default;
  FlatBuffer(int64_t numel, at::ScalarType dtype, at::Device device);

  /// Takes memory from the allocator (contents undefined); nothing when it has memory already.
  void fill();
  /// Gives the memory back. Views become unreadable until the next fill().
  void drop();
  bool filled() const { return filled_; }

  /// Makes a tensor over elements [offset, offset + numel of shape); may be called while there is
  /// no memory.
  at::Tensor view(int64_t offset, at::IntArrayRef shape) const;
  /// All of it, one-dimensional.
  const at::Tensor& whole() const { return whole_; }
  int64_t numel() const { return numel_; }
  int64_t bytes() const { return bytes_; }

 private:
  c10::intrusive_ptr<c10::StorageImpl> storage_;
  at::Tensor whole_;
  at::ScalarType dtype_ = at::kFloat;
  at::Device device_ = at::kCPU;
  int64_t numel_ = 0;
  int64_t bytes_ = 0;
  bool filled_ = false;
};

}  // namespace kamerton::optim
