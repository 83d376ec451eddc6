// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/decode.h"

#include <algorithm>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "device_ops.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

template <class T>
void decode_head(const CachedRow& cached,
                 const AttentionShape& shape,
                 int64_t head,
                 const T* q,
                 T* out,
                 std::vector<float>& scratch) {
  const int64_t d = shape.head_dim;
  const int64_t stride = shape.kv_heads * d;
  const int64_t column = head / (shape.heads / shape.kv_heads) * d;
  const int64_t page_rows = cached.pages->front().size(1);
  scratch.resize(static_cast<size_t>(page_rows + 2 * d));
  float* query = scratch.data() + page_rows;
  float* sum = query + d;
  std::fill_n(sum, d, 0.0f);
  if constexpr (sizeof(T) == 2) {
    simd::to_float(q, query, d);
  } else {
    std::copy_n(q, d, query);
  }
  for (int64_t i = 0; i < d; ++i) {
    query[i] *= static_cast<float>(shape.scale);
  }
  simd::DecodeState state{
      -std::numeric_limits<float>::infinity(), 0.0f, static_cast<float>(shape.soft_cap)};
  const int64_t first = shape.window > 0 ? std::max<int64_t>(0, cached.length - shape.window) : 0;
  for (int64_t at = first; at < cached.length;) {
    const int64_t row = at % page_rows;
    const int64_t n = std::min(page_rows - row, cached.length - at);
    const T* keys =
        read_ptr<T>((*cached.pages)[static_cast<size_t>(at / page_rows)]) + row * stride + column;
    simd::decode_page(
        query, keys, keys + page_rows * stride, n, stride, d, state, sum, scratch.data());
    at += n;
  }
  const float inverse = 1.0f / state.sum;
  for (int64_t i = 0; i < d; ++i) {
    sum[i] *= inverse;
  }
  if constexpr (sizeof(T) == 2) {
    simd::to_bf16(sum, out, d);
  } else {
    std::copy_n(sum, d, out);
  }
}

}  // namespace

at::Tensor attend_cached(const at::Tensor& q,
                         const std::vector<CachedRow>& rows,
                         const AttentionShape& shape) {
  if (!has_kernels(q)) {
    return device::attend_cached(q, rows, shape);
  }
  at::Tensor out = at::empty_like(q);
  const int64_t tasks = q.size(0) * shape.heads;
  at::parallel_for(0, tasks, 4, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch;
    with_element(q, [&](auto element) {
      using T = decltype(element);
      const T* in = read_ptr<T>(q);
      T* result = write_ptr<T>(out);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t at = task * shape.head_dim;
        decode_head(rows[static_cast<size_t>(task / shape.heads)],
                    shape,
                    task % shape.heads,
                    in + at,
                    result + at,
                    scratch);
      }
    });
  });
  return out;
}

}  // namespace kamerton::tensor
