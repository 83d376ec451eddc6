// SPDX-License-Identifier: Apache-2.0
// From tensors to the pointers that the inner loops take.
#pragma once

#include <ATen/ATen.h>

#include "simd.h"

namespace kamerton::tensor {

/// True for what the CPU kernels handle; other devices and types take the ATen way.
inline bool has_kernels(const at::Tensor& t) {
  return t.is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
}

template <class T>
const T* read_ptr(const at::Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.const_data_ptr()) : nullptr;
}
template <class T>
T* write_ptr(const at::Tensor& t) {
  return t.defined() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

/// Calls f with a value of the element type (float or simd::Bf16).
template <class F>
void with_element(const at::Tensor& t, const F& f) {
  t.scalar_type() == at::kFloat ? f(float{}) : f(simd::Bf16{});
}

/// accumulator (fp32) += x (fp32 or bf16, same number of elements).
void add_to_accumulator(at::Tensor& accumulator, const at::Tensor& x);

}  // namespace kamerton::tensor
