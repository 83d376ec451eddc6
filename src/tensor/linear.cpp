// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kamerton/core/error.h"

#include "device_ops.h"
#include "node.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

struct LinearStep final : BackwardStep {
  at::Tensor x;
  ParameterPtr weight;
  ParameterPtr bias;
  bool transposed = false;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor()};
    }
    const at::Tensor dy = grads[0].contiguous();
    if (weight->trainable) {
      at::Tensor target = weight->accumulator();
      transposed ? add_outer_product(target, x, dy) : add_outer_product(target, dy, x);
    }
    if (is_trainable(bias)) {
      bias->accumulator().add_(dy.sum(0, false, at::kFloat));
    }
    if (!task_should_compute_output(0)) {
      return {at::Tensor()};
    }
    const at::Tensor w = weight->value.detach();
    return {transposed ? product_transposed(dy, w) : product(dy, w)};
  }
  void release_variables() override { x.reset(); }
};

struct EmbeddingStep final : BackwardStep {
  at::Tensor tokens;
  ParameterPtr weight;
  at::TensorOptions anchor_options;
  bool has_anchor = false;

  variable_list backward(variable_list grads) override {
    if (grads[0].defined() && weight->trainable) {
      at::Tensor target = weight->accumulator();
      add_rows(target, grads[0].contiguous());
    }
    // The anchor's (empty) gradient is what tells the unit's bracket that this use is over.
    return has_anchor ? variable_list{at::zeros({0}, anchor_options)} : variable_list{};
  }

  /// target[tokens[n]] += dy[n]. Threads split the columns, so that equal tokens add in order of n.
  void add_rows(at::Tensor& target, const at::Tensor& dy) const {
    if (!has_kernels(dy)) {
      device::add_rows(target, tokens, dy);
      return;
    }
    const int64_t width = dy.size(1);
    const int64_t* ids = tokens.const_data_ptr<int64_t>();
    float* out = target.mutable_data_ptr<float>();
    at::parallel_for(0, width, 64, [&](int64_t begin, int64_t end) {
      with_element(dy, [&](auto element) {
        using T = decltype(element);
        const T* rows = read_ptr<T>(dy);
        for (int64_t n = 0; n < dy.size(0); ++n) {
          simd::add_into(out + ids[n] * width + begin, rows + n * width + begin, end - begin);
        }
      });
    });
  }
};

}  // namespace

void add_to_accumulator(at::Tensor& accumulator, const at::Tensor& x) {
  if (!x.is_cpu() || x.scalar_type() != at::kBFloat16 || !x.is_contiguous() ||
      !accumulator.is_contiguous()) {
    accumulator.add_(x);
    return;
  }
  float* out = accumulator.mutable_data_ptr<float>();
  const auto* in = read_ptr<simd::Bf16>(x);
  at::parallel_for(0, x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    simd::add_into(out + begin, in + begin, end - begin);
  });
}

at::Tensor linear(const at::Tensor& x_NI,
                  const ParameterPtr& weight,
                  const ParameterPtr& bias,
                  bool transposed) {
  at::Tensor out;
  {
    const at::NoGradGuard no_grad;
    out = transposed ? product(x_NI, weight->value) : product_transposed(x_NI, weight->value);
    if (bias != nullptr) {
      out.add_(bias->value);
    }
  }
  if (recording() && (x_NI.requires_grad() || weight->trainable || is_trainable(bias))) {
    auto step = make_step<LinearStep>();
    step->x = x_NI.detach();
    step->weight = weight;
    step->bias = bias;
    step->transposed = transposed;
    connect(step, {x_NI}, {out});
  }
  return out;
}

at::Tensor embedding(const at::Tensor& tokens_N,
                     const ParameterPtr& weight,
                     const at::Tensor& anchor) {
  at::Tensor out;
  {
    const at::NoGradGuard no_grad;
    out = weight->value.index_select(0, tokens_N);
  }
  if (recording() && (weight->trainable || (anchor.defined() && anchor.requires_grad()))) {
    auto step = make_step<EmbeddingStep>();
    step->tokens = tokens_N;
    step->weight = weight;
    step->has_anchor = anchor.defined();
    if (anchor.defined()) {
      step->anchor_options = anchor.options().requires_grad(false);
      connect(step, {anchor}, {out});
    } else {
      connect(step, {}, {out});
    }
  }
  return out;
}

}  // namespace kamerton::tensor
