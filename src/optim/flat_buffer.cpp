// SPDX-License-Identifier: Apache-2.0
#include "flat_buffer.h"

#include <ATen/ops/empty.h>
#include <c10/core/Allocator.h>

namespace kamerton::optim {

namespace {

c10::DataPtr no_memory() {
  return c10::DataPtr(nullptr, c10::Device(c10::kCPU));
}

}  // namespace

FlatBuffer::FlatBuffer(int64_t numel, at::ScalarType dtype)
    : dtype_(dtype), numel_(numel), bytes_(numel * static_cast<int64_t>(c10::elementSize(dtype))) {
  storage_ = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), c10::SymInt(bytes_), no_memory(), nullptr, false);
  whole_ = view(0, {numel});
}

void FlatBuffer::fill() {
  if (filled_ || numel_ == 0) {
    return;
  }
  storage_->set_data_ptr_noswap(
      c10::GetAllocator(c10::kCPU)->allocate(static_cast<size_t>(bytes_)));
  filled_ = true;
}

void FlatBuffer::drop() {
  if (filled_) {
    storage_->set_data_ptr_noswap(no_memory());
    filled_ = false;
  }
}

at::Tensor FlatBuffer::view(int64_t offset, at::IntArrayRef shape) const {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(storage_),
                                                         c10::DispatchKeySet(c10::DispatchKey::CPU),
                                                         c10::scalarTypeToTypeMeta(dtype_));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  tensor.unsafeGetTensorImpl()->set_storage_offset(offset);
  return tensor;
}

}  // namespace kamerton::optim
