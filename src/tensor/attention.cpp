// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "node.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

using Offsets = std::shared_ptr<const std::vector<int64_t>>;

/// `count` documents of equal length next to each other: one call of the kernel.
struct Group {
  int64_t begin;
  int64_t count;
  int64_t length;

  int64_t rows() const { return count * length; }
};

std::vector<Group> group_documents(const std::vector<int64_t>& offsets) {
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
at::Tensor heads_of(const at::Tensor& flat, const Group& group, int64_t heads) {
  return flat.narrow(0, group.begin, group.rows())
      .view({group.count, group.length, heads, flat.size(1) / heads})
      .transpose(1, 2);
}

/// Keys or values with each head repeated for its group of query heads, without copying.
at::Tensor spread(const at::Tensor& flat, const Group& group, const AttentionShape& shape) {
  const at::Tensor heads = heads_of(flat, group, shape.kv_heads);
  if (shape.heads == shape.kv_heads) {
    return heads;
  }
  return heads.unsqueeze(2).expand({-1, -1, shape.heads / shape.kv_heads, -1, -1}).flatten(1, 2);
}

/// Additive mask of a sliding window, or undefined when causality alone says all.
std::optional<at::Tensor> window_mask(const at::Tensor& like, int64_t length, int64_t window) {
  if (window <= 0 || length <= window) {
    return std::nullopt;
  }
  const at::Tensor allowed =
      at::ones({length, length}, like.options().dtype(at::kBool)).tril().triu(1 - window);
  return at::zeros({length, length}, like.options())
      .masked_fill_(allowed.logical_not(), -std::numeric_limits<double>::infinity());
}

struct AttentionStep final : BackwardStep {
  at::Tensor q, k, v, out;  // q and k rotated
  std::vector<at::Tensor> log_sums;
  Rotary rotary;
  AttentionShape shape;
  Offsets offsets;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dq = at::empty_like(q);
    at::Tensor dk = at::empty_like(k);
    at::Tensor dv = at::empty_like(v);
    const std::vector<Group> groups = group_documents(*offsets);
    for (size_t g = 0; g < groups.size(); ++g) {
      backward_group(groups[g], log_sums[g], dout, dq, dk, dv);
    }
    if (rotary.cos_NR.defined()) {
      rotate(dq, rotary, shape.head_dim, true);
      rotate(dk, rotary, shape.head_dim, true);
    }
    return {dq, dk, dv};
  }

  void backward_group(const Group& group,
                      const at::Tensor& log_sum,
                      const at::Tensor& dout,
                      at::Tensor& dq,
                      at::Tensor& dk,
                      at::Tensor& dv) const {
    const auto mask = window_mask(q, group.length, shape.window);
    const auto [gq, gk, gv] =
        at::_scaled_dot_product_flash_attention_for_cpu_backward(heads_of(dout, group, shape.heads),
                                                                 heads_of(q, group, shape.heads),
                                                                 spread(k, group, shape),
                                                                 spread(v, group, shape),
                                                                 heads_of(out, group, shape.heads),
                                                                 log_sum,
                                                                 0.0,
                                                                 !mask.has_value(),
                                                                 mask,
                                                                 shape.scale);
    heads_of(dq, group, shape.heads).copy_(gq);
    gather_heads(gk, group, dk);
    gather_heads(gv, group, dv);
  }

  /// Sums the gradients of the query heads that share a key head.
  void gather_heads(const at::Tensor& grad, const Group& group, at::Tensor& into) const {
    at::Tensor target = heads_of(into, group, shape.kv_heads);
    if (shape.heads == shape.kv_heads) {
      target.copy_(grad);
    } else {
      at::sum_out(target, grad.unflatten(1, {shape.kv_heads, shape.heads / shape.kv_heads}), {2});
    }
  }

  void release_variables() override {
    q.reset();
    k.reset();
    v.reset();
    out.reset();
    log_sums.clear();
  }
};

/// The ATen way for other devices: out of place, recorded by autograd itself.
at::Tensor attend_plain(const at::Tensor& q,
                        const at::Tensor& k,
                        const at::Tensor& v,
                        const AttentionShape& shape,
                        const Offsets& offsets) {
  std::vector<at::Tensor> parts;
  for (const Group& group : group_documents(*offsets)) {
    const auto mask = window_mask(q, group.length, shape.window);
    parts.push_back(at::scaled_dot_product_attention(heads_of(q, group, shape.heads),
                                                     heads_of(k, group, shape.kv_heads),
                                                     heads_of(v, group, shape.kv_heads),
                                                     mask,
                                                     0.0,
                                                     !mask.has_value(),
                                                     shape.scale,
                                                     shape.heads != shape.kv_heads)
                        .transpose(1, 2)
                        .reshape({group.rows(), q.size(1)}));
  }
  return parts.empty() ? at::empty_like(q) : at::cat(parts, 0);
}

at::Tensor rotated_plain(const at::Tensor& x, const Rotary& rotary, int64_t head_dim) {
  const int64_t half = rotary.cos_NR.size(1);
  const at::Tensor heads = x.view({x.size(0), -1, head_dim});
  const at::Tensor a = heads.narrow(2, 0, half).to(at::kFloat);
  const at::Tensor b = heads.narrow(2, half, half).to(at::kFloat);
  const at::Tensor cos = rotary.cos_NR.unsqueeze(1);
  const at::Tensor sin = rotary.sin_NR.unsqueeze(1);
  const at::Tensor rest = heads.narrow(2, 2 * half, head_dim - 2 * half);
  return at::cat({(a * cos - b * sin).to(x.scalar_type()),
                  (b * cos + a * sin).to(x.scalar_type()),
                  rest},
                 2)
      .view(x.sizes());
}

at::Tensor attend_flash(AttentionStep& step) {
  at::Tensor out = at::empty_like(step.q);
  const std::vector<Group> groups = group_documents(*step.offsets);
  for (const Group& group : groups) {
    const auto mask = window_mask(step.q, group.length, step.shape.window);
    auto [result, log_sum] =
        at::_scaled_dot_product_flash_attention_for_cpu(heads_of(step.q, group, step.shape.heads),
                                                        spread(step.k, group, step.shape),
                                                        spread(step.v, group, step.shape),
                                                        0.0,
                                                        !mask.has_value(),
                                                        mask,
                                                        step.shape.scale);
    step.log_sums.push_back(log_sum);
    const at::Tensor flat = result.transpose(1, 2);
    if (groups.size() == 1 && flat.is_contiguous() && group.rows() == out.size(0)) {
      return flat.view(out.sizes()).detach();
    }
    out.narrow(0, group.begin, group.rows()).copy_(flat.reshape({group.rows(), out.size(1)}));
  }
  return out;
}

}  // namespace

void rotate(at::Tensor& x_NE, const Rotary& rotary, int64_t head_dim, bool inverse) {
  const int64_t half = rotary.cos_NR.size(1);
  const int64_t width = x_NE.size(1);
  if (!has_kernels(x_NE)) {
    const Rotary turn{rotary.cos_NR, inverse ? rotary.sin_NR.neg() : rotary.sin_NR};
    x_NE.copy_(rotated_plain(x_NE, turn, head_dim));
    return;
  }
  const float sign = inverse ? -1.0f : 1.0f;
  const float* cos = rotary.cos_NR.const_data_ptr<float>();
  const float* sin = rotary.sin_NR.const_data_ptr<float>();
  at::parallel_for(0, x_NE.size(0), 32, [&](int64_t begin, int64_t end) {
    with_element(x_NE, [&](auto element) {
      using T = decltype(element);
      T* rows = write_ptr<T>(x_NE);
      for (int64_t n = begin; n < end; ++n) {
        simd::rotate_row(rows + n * width,
                         width / head_dim,
                         head_dim,
                         half,
                         cos + n * half,
                         sin + n * half,
                         sign);
      }
    });
  });
}

at::Tensor attend(const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const Rotary& rotary,
                  const AttentionShape& shape,
                  const Offsets& offsets) {
  const bool rotates = rotary.cos_NR.defined();
  if (!has_kernels(q)) {
    return rotates ? attend_plain(rotated_plain(q, rotary, shape.head_dim),
                                  rotated_plain(k, rotary, shape.head_dim),
                                  v,
                                  shape,
                                  offsets)
                   : attend_plain(q, k, v, shape, offsets);
  }
  auto step = make_step<AttentionStep>();
  at::Tensor out;
  {
    const at::NoGradGuard no_grad;
    step->q = q.detach().contiguous();
    step->k = k.detach().contiguous();
    step->v = v.detach().contiguous();
    step->rotary = rotary;
    step->shape = shape;
    step->offsets = offsets;
    if (rotates) {
      rotate(step->q, rotary, shape.head_dim);
      rotate(step->k, rotary, shape.head_dim);
    }
    out = attend_flash(*step);
  }
  if (recording() && (q.requires_grad() || k.requires_grad() || v.requires_grad())) {
    step->out = out.detach();
    connect(step, {q, k, v}, {out});
  }
  return out;
}

}  // namespace kamerton::tensor
