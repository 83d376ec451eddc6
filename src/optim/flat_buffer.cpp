// SPDX-License-Identifier: Apache-2.0
#include "flat_buffer.h"

#include <ATen/ops/empty.h>
#include <c10/core/Allocator.h>
#include <c10/core/TensorOptions.h>

namespace kamerton::optim {

namespace {

c10::DataPtr no_memory(at::Device device) {
  return c10::DataPtr(nullptr, device);
}

/// From the device's own allocator.
c10::DataPtr take_memory(int64_t bytes, at::Device device) {
  if (device.is_cpu()) {
    return c10::GetAllocator(c10::kCPU)->allocate(static_cast<size_t>(bytes));
  }
  const at::Tensor owner = at::empty({bytes}, at::TensorOptions(device).dtype(at::kByte));
  return owner.storage().set_data_ptr(no_memory(device));
}

}  // namespace

FlatBuffer::FlatBuffer(int64_t numel, at::ScalarType dtype, at::Device device)
    : dtype_(dtype),
      device_(device),
      numel_(numel),
      bytes_(numel * static_cast<int64_t>(c10::elementSize(dtype))) {
  storage_ = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), c10::SymInt(bytes_), no_memory(device), nullptr, false);
  whole_ = view(0, {numel});
}

void FlatBuffer::fill() {
  if (filled_ || numel_ == 0) {
    return;
  }
  storage_->set_data_ptr_noswap(take_memory(bytes_, device_));
  filled_ = true;
}

void FlatBuffer::drop() {
  if (filled_) {
    storage_->set_data_ptr_noswap(no_memory(device_));
    filled_ = false;
  }
}

at::Tensor FlatBuffer::view(int64_t offset, at::IntArrayRef shape) const {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(storage_),
      c10::DispatchKeySet(c10::computeDispatchKey(dtype_, c10::kStrided, device_)),
      c10::scalarTypeToTypeMeta(dtype_));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  tensor.unsafeGetTensorImpl()->set_storage_offset(offset);
  return tensor;
}

}  // namespace kamerton::optim
