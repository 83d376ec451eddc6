// SPDX-License-Identifier: Apache-2.0
// Documents in a row as batches that attention kernels take.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include <ATen/ATen.h>

#include "kamerton/tensor/attention.h"

namespace kamerton::tensor {

/// `count` documents of equal length next to each other: one call of the kernel.
struct Group {
  int64_t begin;
  int64_t count;
  int64_t length;

  int64_t rows() const { return count * length; }
};

inline std::vector<Group> group_documents(const std::vector<int64_t>& offsets) {
  std::vector<Group> groups;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    const int64_t length = offsets[d + 1] - offsets[d];
    if (length == 0) {
      continue;
    }
    if (!groups.empty() && groups.back().length == length) {
      ++groups.back().count;
    } else {
      groups.push_back({offsets[d], 1, length});
    }
  }
  return groups;
}

/// Rows of a group as [count, heads, length, head_dim], a view.
inline at::Tensor heads_of(const at::Tensor& flat, const Group& group, int64_t heads) {
  return flat.narrow(0, group.begin, group.rows())
      .view({group.count, group.length, heads, flat.size(1) / heads})
      .transpose(1, 2);
}

/// Keys or values with each head repeated for its group of query heads, without copying.
inline at::Tensor spread(const at::Tensor& flat, const Group& group, const AttentionShape& shape) {
  const at::Tensor heads = heads_of(flat, group, shape.kv_heads);
  if (shape.heads == shape.kv_heads) {
    return heads;
  }
  return heads.unsqueeze(2).expand({-1, -1, shape.heads / shape.kv_heads, -1, -1}).flatten(1, 2);
}

/// Additive mask of a sliding window, or undefined when causality alone says all.
inline std::optional<at::Tensor> window_mask(const at::Tensor& like,
                                             int64_t length,
                                             int64_t window) {
  if (window <= 0 || length <= window) {
    return std::nullopt;
  }
  const at::Tensor allowed =
      at::ones({length, length}, like.options().dtype(at::kBool)).tril().triu(1 - window);
  return at::zeros({length, length}, like.options())
      .masked_fill_(allowed.logical_not(), -std::numeric_limits<double>::infinity());
}

}  // namespace kamerton::tensor
