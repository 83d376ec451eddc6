// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "device_ops.h"
#include "documents.h"

namespace kamerton::tensor::device {
namespace {

/// The fused attention of CUDA takes shared key heads as they are in 16-bit types and without a
/// mask; otherwise the call would fall back to whole score matrices, so the heads are repeated.
bool shares_heads(const at::Tensor& q, const AttentionShape& shape, bool masked) {
  return shape.heads != shape.kv_heads && !masked && q.element_size() == 2;
}

at::Tensor attend_group(const at::Tensor& q,
                        const at::Tensor& k,
                        const at::Tensor& v,
                        const AttentionShape& shape,
                        const Group& group) {
  const auto mask = window_mask(q, group.length, shape.window);
  const bool shares = shares_heads(q, shape, mask.has_value());
  const auto keys = [&](const at::Tensor& flat) {
    return shares ? heads_of(flat, group, shape.kv_heads) : spread(flat, group, shape);
  };
  return at::scaled_dot_product_attention(heads_of(q, group, shape.heads),
                                          keys(k),
                                          keys(v),
                                          mask,
                                          0.0,
                                          !mask.has_value(),
                                          shape.scale,
                                          shares)
      .transpose(1, 2)
      .reshape({group.rows(), q.size(1)});
}

/// query [1, heads, 1, d] against keys and values [2, kv_heads, n, d].
at::Tensor capped_row(const at::Tensor& query,
                      const at::Tensor& seen,
                      const AttentionShape& shape) {
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor rows = query.view({shape.kv_heads, group, shape.head_dim});
  at::Tensor scores = at::matmul(rows.to(at::kFloat), seen[0].to(at::kFloat).transpose(1, 2));
  scores.mul_(shape.scale / shape.soft_cap).tanh_().mul_(shape.soft_cap);
  return at::matmul(at::softmax(scores, -1).to(seen.scalar_type()), seen[1]).view({1, -1});
}

}  // namespace

at::Tensor rotated(const at::Tensor& x_NE, const Rotary& rotary, int64_t head_dim) {
  const int64_t half = rotary.cos_NR.size(1);
  const at::Tensor heads = x_NE.view({x_NE.size(0), -1, head_dim});
  const at::Tensor a = heads.narrow(2, 0, half).to(at::kFloat);
  const at::Tensor b = heads.narrow(2, half, half).to(at::kFloat);
  const at::Tensor cos = rotary.cos_NR.unsqueeze(1);
  const at::Tensor sin = rotary.sin_NR.unsqueeze(1);
  const at::Tensor rest = heads.narrow(2, 2 * half, head_dim - 2 * half);
  return at::cat({(a * cos - b * sin).to(x_NE.scalar_type()),
                  (b * cos + a * sin).to(x_NE.scalar_type()),
                  rest},
                 2)
      .view(x_NE.sizes());
}

at::Tensor attend(const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const Rotary& rotary,
                  const AttentionShape& shape,
                  const std::vector<int64_t>& offsets) {
  if (rotary.cos_NR.defined()) {
    return attend(rotated(q, rotary, shape.head_dim),
                  rotated(k, rotary, shape.head_dim),
                  v,
                  {},
                  shape,
                  offsets);
  }
  if (shape.soft_cap > 0) {
    return attend_capped(q, k, v, shape, offsets);
  }
  std::vector<at::Tensor> parts;
  for (const Group& group : group_documents(offsets)) {
    parts.push_back(attend_group(q, k, v, shape, group));
  }
  if (parts.size() == 1) {
    return parts.front();
  }
  return parts.empty() ? at::empty_like(q) : at::cat(parts, 0);
}

at::Tensor attend_cached(const at::Tensor& q,
                         const std::vector<CachedRow>& rows,
                         const AttentionShape& shape) {
  std::vector<at::Tensor> results;
  for (size_t n = 0; n < rows.size(); ++n) {
    const at::Tensor pages = at::cat(*rows[n].pages, 1);
    const int64_t first =
        shape.window > 0 ? std::max<int64_t>(0, rows[n].length - shape.window) : 0;
    const at::Tensor seen = pages.narrow(1, first, rows[n].length - first)
                                .view({2, -1, shape.kv_heads, shape.head_dim})
                                .transpose(1, 2);
    const at::Tensor query = q[static_cast<int64_t>(n)].view({1, shape.heads, 1, shape.head_dim});
    if (shape.soft_cap > 0) {
      results.push_back(capped_row(query, seen, shape));
      continue;
    }
    results.push_back(at::scaled_dot_product_attention(query,
                                                       seen[0].unsqueeze(0),
                                                       seen[1].unsqueeze(0),
                                                       {},
                                                       0.0,
                                                       false,
                                                       shape.scale,
                                                       shape.heads != shape.kv_heads)
                          .view({1, -1}));
  }
  return at::cat(results, 0);
}

}  // namespace kamerton::tensor::device
