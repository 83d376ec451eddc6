// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kamerton/tensor/linear.h"

#include "blocked_attention.h"
#include "device_ops.h"
#include "documents.h"
#include "node.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

using Offsets = std::shared_ptr<const std::vector<int64_t>>;

struct AttentionStep final : BackwardStep {
  at::Tensor q, k, v, out;           // q and k rotated
  std::vector<at::Tensor> log_sums;  // one a group, or one for all rows in blocks
  bool blocked = false;
  Rotary rotary;
  AttentionShape shape;
  Offsets offsets;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const at::ScalarType type = q.scalar_type();
    q = prepared(q);
    k = prepared(k);
    v = prepared(v);
    out = prepared(out);
    const at::Tensor dout = grads[0].to(q.scalar_type()).contiguous();
    at::Tensor dq = at::empty_like(q);
    at::Tensor dk = blocked ? at::zeros_like(k) : at::empty_like(k);
    at::Tensor dv = blocked ? at::zeros_like(v) : at::empty_like(v);
    if (blocked) {
      blocked_backward(shape, *offsets, {q, k, v, out, log_sums.front(), dout}, dq, dk, dv);
    } else {
      const std::vector<Group> groups = group_documents(*offsets);
      for (size_t g = 0; g < groups.size(); ++g) {
        backward_group(groups[g], log_sums[g], dout, dq, dk, dv);
      }
    }
    if (rotary.cos_NR.defined()) {
      rotate(dq, rotary, shape.head_dim, true);
      rotate(dk, rotary, shape.head_dim, true);
    }
    return {dq.to(type), dk.to(type), dv.to(type)};
  }

  at::Tensor prepared(const at::Tensor& x) const {
    return blocked ? x.to(at::kFloat) : prepared_operand(x);
  }

  void backward_group(const Group& group,
                      const at::Tensor& log_sum,
                      const at::Tensor& dout,
                      at::Tensor& dq,
                      at::Tensor& dk,
                      at::Tensor& dv) const {
    const auto [gq, gk, gv] =
        at::_scaled_dot_product_flash_attention_for_cpu_backward(heads_of(dout, group, shape.heads),
                                                                 heads_of(q, group, shape.heads),
                                                                 spread(k, group, shape),
                                                                 spread(v, group, shape),
                                                                 heads_of(out, group, shape.heads),
                                                                 log_sum,
                                                                 0.0,
                                                                 true,
                                                                 std::nullopt,
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

at::Tensor attend_blocked(AttentionStep& step) {
  const at::Tensor q = step.prepared(step.q);
  at::Tensor out = at::empty_like(q);
  step.log_sums = {at::empty({step.shape.heads, q.size(0)}, at::kFloat)};
  blocked_forward(step.shape,
                  *step.offsets,
                  q,
                  step.prepared(step.k),
                  step.prepared(step.v),
                  out,
                  step.log_sums.front());
  return out.to(step.q.scalar_type());
}

at::Tensor attend_flash(AttentionStep& step) {
  const at::Tensor q = prepared_operand(step.q);
  const at::Tensor k = prepared_operand(step.k);
  const at::Tensor v = prepared_operand(step.v);
  at::Tensor out = at::empty_like(q);
  const std::vector<Group> groups = group_documents(*step.offsets);
  for (const Group& group : groups) {
    auto [result, log_sum] =
        at::_scaled_dot_product_flash_attention_for_cpu(heads_of(q, group, step.shape.heads),
                                                        spread(k, group, step.shape),
                                                        spread(v, group, step.shape),
                                                        0.0,
                                                        true,
                                                        std::nullopt,
                                                        step.shape.scale);
    step.log_sums.push_back(log_sum);
    const at::Tensor flat = result.transpose(1, 2);
    if (groups.size() == 1 && flat.is_contiguous() && group.rows() == out.size(0)) {
      return flat.view(out.sizes()).to(step.q.scalar_type()).detach();
    }
    out.narrow(0, group.begin, group.rows()).copy_(flat.reshape({group.rows(), out.size(1)}));
  }
  return out.to(step.q.scalar_type());
}

}  // namespace

void rotate(at::Tensor& x_NE, const Rotary& rotary, int64_t head_dim, bool inverse) {
  const int64_t half = rotary.cos_NR.size(1);
  const int64_t width = x_NE.size(1);
  if (!has_kernels(x_NE)) {
    const Rotary turn{rotary.cos_NR, inverse ? rotary.sin_NR.neg() : rotary.sin_NR};
    x_NE.copy_(device::rotated(x_NE, turn, head_dim));
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
    return device::attend(q, k, v, rotary, shape, *offsets);
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
    step->blocked = needs_blocks(shape, *offsets);
    out = step->blocked ? attend_blocked(*step) : attend_flash(*step);
  }
  if (recording() && (q.requires_grad() || k.requires_grad() || v.requires_grad())) {
    step->out = out.detach();
    connect(step, {q, k, v}, {out});
  }
  return out;
}

}  // namespace kamerton::tensor
