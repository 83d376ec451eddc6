// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/experts.h"

#include <ATen/ATen.h>

#include "node.h"

namespace kamerton::tensor {
namespace {

/// d softmax: from gradients of the chosen weights (and of the load-balancing loss) to the logits.
struct RouteStep final : BackwardStep {
  at::Tensor probabilities_NE;
  at::Tensor chosen_NK;
  at::Tensor weights_NK;
  bool normalised = false;
  at::ScalarType type = at::kFloat;
  std::shared_ptr<RouterTotals> totals;

  variable_list backward(variable_list grads) override {
    at::Tensor d_NE = at::zeros_like(probabilities_NE);
    if (grads[0].defined()) {
      at::Tensor d_NK = grads[0].to(at::kFloat);
      if (normalised) {
        // w = p / s with s the sum of the chosen: dp = (dw - sum(dw w)) / s.
        const at::Tensor sum_N1 = probabilities_NE.gather(1, chosen_NK).sum(1, true);
        d_NK = (d_NK - (d_NK * weights_NK).sum(1, true)) / sum_N1;
      }
      d_NE.scatter_(1, chosen_NK, d_NK);
    }
    if (totals != nullptr && totals->strength() != 0.0) {
      d_NE.add_(totals->gradient().to(d_NE.device()));
    }
    const at::Tensor inner_N1 = (d_NE * probabilities_NE).sum(1, true);
    return {d_NE.sub_(inner_N1).mul_(probabilities_NE).to(type)};
  }
  void release_variables() override {
    probabilities_NE.reset();
    chosen_NK.reset();
    weights_NK.reset();
  }
};

struct DispatchStep final : BackwardStep {
  at::Tensor place_NK;

  /// A token's gradient is the sum over its K rows, always in the same order.
  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor()};
    }
    const at::Tensor rows = grads[0].index_select(0, place_NK.view({-1}));
    return {rows.view({place_NK.size(0), place_NK.size(1), -1}).sum(1)};
  }
  void release_variables() override { place_NK.reset(); }
};

struct CombineStep final : BackwardStep {
  at::Tensor y_MD;
  at::Tensor weights_NK;
  at::Tensor token_M;
  at::Tensor place_NK;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor(), at::Tensor()};
    }
    const at::Tensor dout_MD = grads[0].index_select(0, token_M);
    at::Tensor dweights_NK;
    if (task_should_compute_output(1)) {
      const at::Tensor dot_M = (dout_MD * y_MD).sum(1, false, at::kFloat);
      dweights_NK = dot_M.index_select(0, place_NK.view({-1})).view(place_NK.sizes());
    }
    at::Tensor weight_M = at::empty({token_M.size(0)}, weights_NK.options());
    weight_M.scatter_(0, place_NK.view({-1}), weights_NK.view({-1}));
    return {dout_MD * weight_M.unsqueeze(1).to(dout_MD.scalar_type()), dweights_NK};
  }
  void release_variables() override {
    y_MD.reset();
    weights_NK.reset();
    token_M.reset();
    place_NK.reset();
  }
};

/// How many of the choices fall on each expert, int64 [E].
at::Tensor count(const at::Tensor& chosen_M, int64_t experts) {
  return at::bincount(chosen_M, {}, experts);
}

}  // namespace

RouterTotals::RouterTotals(int64_t experts, double strength)
    : experts_(experts),
      strength_(strength),
      assignments_E_(at::zeros({experts}, at::kDouble)),
      probabilities_E_(at::zeros({experts}, at::kDouble)) {}

void RouterTotals::add(const at::Tensor& assignments_E,
                       const at::Tensor& probabilities_E,
                       int64_t rows) {
  if (!closed_) {
    assignments_E_.add_(assignments_E.to(at::kCPU, at::kDouble));
    probabilities_E_.add_(probabilities_E.to(at::kCPU, at::kDouble));
    rows_ += rows;
  }
}

double RouterTotals::loss() const {
  if (rows_ == 0) {
    return 0.0;
  }
  const auto rows = static_cast<double>(rows_);
  return static_cast<double>(experts_) * (assignments_E_ * probabilities_E_).sum().item<double>() /
         (rows * rows);
}

at::Tensor RouterTotals::gradient() const {
  const auto rows = static_cast<double>(std::max<int64_t>(rows_, 1));
  return (assignments_E_ * (strength_ * static_cast<double>(experts_) / (rows * rows)))
      .to(at::kFloat);
}

Routing route(const at::Tensor& logits_NE,
              int64_t choices,
              bool normalised,
              const std::shared_ptr<RouterTotals>& totals) {
  Routing routing;
  at::Tensor probabilities_NE;
  at::Tensor chosen_NK;
  {
    const at::NoGradGuard no_grad;
    const int64_t experts = logits_NE.size(1);
    probabilities_NE = at::softmax(logits_NE.detach(), 1, at::kFloat);
    std::tie(routing.weights_NK, chosen_NK) = probabilities_NE.topk(choices, 1);
    if (normalised) {
      routing.weights_NK = routing.weights_NK / routing.weights_NK.sum(1, true);
    }
    const at::Tensor chosen_M = chosen_NK.reshape({-1});
    const at::Tensor order_M = at::argsort(chosen_M, /*stable=*/true, 0, /*descending=*/false);
    routing.token_M = order_M.floor_divide(choices);
    routing.place_NK = at::empty_like(order_M)
                           .scatter_(0, order_M, at::arange(order_M.size(0), order_M.options()))
                           .view(chosen_NK.sizes());
    const at::Tensor count_E = count(chosen_M, experts);
    const at::Tensor on_host = count_E.to(at::kCPU);
    routing.count_E.assign(on_host.const_data_ptr<int64_t>(),
                           on_host.const_data_ptr<int64_t>() + experts);
    if (totals != nullptr) {
      totals->add(count_E, probabilities_NE.sum(0, false, at::kDouble), logits_NE.size(0));
    }
  }
  if (recording() && logits_NE.requires_grad()) {
    auto step = make_step<RouteStep>();
    step->probabilities_NE = probabilities_NE;
    step->chosen_NK = chosen_NK;
    step->weights_NK = routing.weights_NK.detach();
    step->normalised = normalised;
    step->type = logits_NE.scalar_type();
    step->totals = totals;
    connect(step, {logits_NE}, {routing.weights_NK});
  }
  return routing;
}

at::Tensor dispatch(const at::Tensor& x_ND, const Routing& routing) {
  at::Tensor rows_MD;
  {
    const at::NoGradGuard no_grad;
    rows_MD = x_ND.detach().index_select(0, routing.token_M);
  }
  if (recording() && x_ND.requires_grad()) {
    auto step = make_step<DispatchStep>();
    step->place_NK = routing.place_NK;
    connect(step, {x_ND}, {rows_MD});
  }
  return rows_MD;
}

at::Tensor combine(const at::Tensor& y_MD, const Routing& routing) {
  at::Tensor out_ND;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor& place = routing.place_NK;
    const at::Tensor rows = y_MD.detach().index_select(0, place.view({-1}));
    const at::Tensor weights = routing.weights_NK.detach().to(y_MD.scalar_type());
    out_ND =
        at::bmm(weights.unsqueeze(1), rows.view({place.size(0), place.size(1), -1})).squeeze(1);
  }
  if (recording() && (y_MD.requires_grad() || routing.weights_NK.requires_grad())) {
    auto step = make_step<CombineStep>();
    step->y_MD = y_MD.detach();
    step->weights_NK = routing.weights_NK.detach();
    step->token_M = routing.token_M;
    step->place_NK = routing.place_NK;
    connect(step, {y_MD, routing.weights_NK}, {out_ND});
  }
  return out_ND;
}

}  // namespace kamerton::tensor
