// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kamerton/tensor/kernels.h"

#include "device_ops.h"
#include "node.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

constexpr int64_t kElementsPerTask = 1 << 14;

/// f(begin, count) over ranges of a contiguous tensor's elements.
template <class F>
void over_elements(int64_t n, const F& f) {
  at::parallel_for(
      0, n, kElementsPerTask, [&](int64_t begin, int64_t end) { f(begin, end - begin); });
}

/// Two operands [N, F] as rows of one stride each; a single range where both are contiguous.
struct Pair {
  at::Tensor gate;
  at::Tensor up;  // undefined: there is none

  bool flat() const { return gate.is_contiguous() && (!up.defined() || up.is_contiguous()); }
};

/// f(offset in gate and up, offset in a contiguous [N, F], count)
template <class F>
void over_pair(const Pair& in, const F& f) {
  if (in.flat()) {
    over_elements(in.gate.numel(), [&](int64_t at, int64_t n) { f(at, at, n); });
    return;
  }
  const int64_t width = in.gate.size(1);
  const int64_t stride = in.gate.stride(0);
  const int64_t grain = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(width, 1));
  at::parallel_for(0, in.gate.size(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      f(n * stride, n * width, width);
    }
  });
}

at::Tensor gated_forward(Activation activation, const Pair& in) {
  at::Tensor out = at::empty(in.gate.sizes(), in.gate.options());
  over_pair(in, [&](int64_t from, int64_t to, int64_t n) {
    with_element(out, [&](auto element) {
      using T = decltype(element);
      simd::gated_forward(activation,
                          read_ptr<T>(in.gate) + from,
                          in.up.defined() ? read_ptr<T>(in.up) + from : nullptr,
                          write_ptr<T>(out) + to,
                          n);
    });
  });
  return out;
}

/// Gradients of the pair, laid out as the pair is.
void gated_backward(Activation activation, const Pair& in, const at::Tensor& dout, Pair& d) {
  over_pair(in, [&](int64_t from, int64_t to, int64_t n) {
    with_element(dout, [&](auto element) {
      using T = decltype(element);
      const bool has_up = in.up.defined();
      simd::gated_backward(activation,
                           simd::GatedBackward<T>{read_ptr<T>(in.gate) + from,
                                                  has_up ? read_ptr<T>(in.up) + from : nullptr,
                                                  read_ptr<T>(dout) + to,
                                                  write_ptr<T>(d.gate) + from,
                                                  has_up ? write_ptr<T>(d.up) + from : nullptr},
                           n);
    });
  });
}

/// gate and up apart, or gate alone.
struct GatedStep final : BackwardStep {
  Activation activation{};
  Pair in;

  variable_list backward(variable_list grads) override {
    const bool has_up = in.up.defined();
    if (!grads[0].defined()) {
      return variable_list(has_up ? 2 : 1);
    }
    Pair d{at::empty_like(in.gate), has_up ? at::empty_like(in.up) : at::Tensor()};
    gated_backward(activation, in, grads[0].contiguous(), d);
    return has_up ? variable_list{d.gate, d.up} : variable_list{d.gate};
  }
  void release_variables() override { in = {}; }
};

Pair halves(const at::Tensor& gate_up) {
  const int64_t width = gate_up.size(1) / 2;
  return {gate_up.narrow(1, 0, width), gate_up.narrow(1, width, width)};
}

/// gate and up in one tensor, and so their gradient.
struct FusedGatedStep final : BackwardStep {
  Activation activation{};
  at::Tensor gate_up;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor()};
    }
    const at::Tensor both = at::empty_like(gate_up);
    Pair d = halves(both);
    gated_backward(activation, halves(gate_up), grads[0].contiguous(), d);
    return {both};
  }
  void release_variables() override { gate_up.reset(); }
};

}  // namespace

bool all_finite(const at::Tensor& x) {
  if (!has_kernels(x) || !x.is_contiguous()) {
    return at::isfinite(x).all().item<bool>();
  }
  std::atomic<bool> finite{true};
  over_elements(x.numel(), [&](int64_t at, int64_t n) {
    with_element(x, [&](auto element) {
      using T = decltype(element);
      if (!simd::all_finite(read_ptr<T>(x) + at, n)) {
        finite.store(false, std::memory_order_relaxed);
      }
    });
  });
  return finite.load();
}

at::Tensor gated(Activation activation, const at::Tensor& gate, const at::Tensor& up) {
  if (!has_kernels(gate)) {
    return device::gated(activation, gate, up);
  }
  const Pair in{gate.detach().contiguous(), up.detach().contiguous()};
  at::Tensor out = gated_forward(activation, in);
  if (recording() && (gate.requires_grad() || up.requires_grad())) {
    auto step = make_step<GatedStep>();
    step->activation = activation;
    step->in = in;
    connect(step, {gate, up}, {out});
  }
  return out;
}

at::Tensor gated(Activation activation, const at::Tensor& gate_up) {
  if (!has_kernels(gate_up)) {
    const Pair in = halves(gate_up);
    return device::gated(activation, in.gate, in.up);
  }
  const at::Tensor both = gate_up.detach().contiguous();
  at::Tensor out = gated_forward(activation, halves(both));
  if (recording() && gate_up.requires_grad()) {
    auto step = make_step<FusedGatedStep>();
    step->activation = activation;
    step->gate_up = both;
    connect(step, {gate_up}, {out});
  }
  return out;
}

at::Tensor activate(Activation activation, const at::Tensor& x) {
  if (!has_kernels(x)) {
    return device::activate(activation, x);
  }
  const Pair in{x.detach().contiguous(), {}};
  at::Tensor out = gated_forward(activation, in);
  if (recording() && x.requires_grad()) {
    auto step = make_step<GatedStep>();
    step->activation = activation;
    step->in = in;
    connect(step, {x}, {out});
  }
  return out;
}

}  // namespace kamerton::tensor
