// SPDX-License-Identifier: Apache-2.0
// Attention of single tokens to keys and values kept in pages.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/tensor/attention.h"

namespace kamerton::tensor {

/// What one query row may see: the first `length` rows of a sequence's pages, each [2, rows a page,
/// kv_heads * head_dim] (keys, values; rotated), all pages of one size.
struct CachedRow {
  const std::vector<at::Tensor>* pages;
  int64_t length;
};

/// q [N, heads * head_dim] (rotated), one CachedRow a row -> [N, heads * head_dim]. No gradient.
/// Threads share out rows x heads; the result of a row does not depend on the others.
at::Tensor attend_cached(const at::Tensor& q,
                         const std::vector<CachedRow>& rows,
                         const AttentionShape& shape);

}  // namespace kamerton::tensor
