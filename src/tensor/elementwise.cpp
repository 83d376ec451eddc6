// SPDX-License-Identifier: Apache-2.0
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

struct SwigluStep final : BackwardStep {
  at::Tensor gate;
  at::Tensor up;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor(), at::Tensor()};
    }
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dgate = at::empty_like(gate);
    at::Tensor dup = at::empty_like(up);
    over_elements(gate.numel(), [&](int64_t at, int64_t n) {
      with_element(gate, [&](auto element) {
        using T = decltype(element);
        simd::swiglu_backward(read_ptr<T>(gate) + at,
                              read_ptr<T>(up) + at,
                              read_ptr<T>(dout) + at,
                              write_ptr<T>(dgate) + at,
                              write_ptr<T>(dup) + at,
                              n);
      });
    });
    return {dgate, dup};
  }
  void release_variables() override {
    gate.reset();
    up.reset();
  }
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

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (!has_kernels(gate)) {
    return device::swiglu(gate, up);
  }
  const at::Tensor g = gate.detach().contiguous();
  const at::Tensor u = up.detach().contiguous();
  at::Tensor out = at::empty_like(g);
  over_elements(g.numel(), [&](int64_t at, int64_t n) {
    with_element(g, [&](auto element) {
      using T = decltype(element);
      simd::swiglu_forward(read_ptr<T>(g) + at, read_ptr<T>(u) + at, write_ptr<T>(out) + at, n);
    });
  });
  if (recording() && (gate.requires_grad() || up.requires_grad())) {
    auto step = make_step<SwigluStep>();
    step->gate = g;
    step->up = u;
    connect(step, {gate, up}, {out});
  }
  return out;
}

}  // namespace kamerton::tensor
