// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/experts.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "support/oracle.h"

namespace kamerton::tensor {
namespace {

constexpr int64_t kRows = 13;
constexpr int64_t kExperts = 5;
constexpr int64_t kChoices = 2;
constexpr int64_t kWidth = 4;

/// Rows by expert e are multiplied by (e + 1), so that a row in a wrong place shows.
at::Tensor by_expert(const at::Tensor& rows_MD, const Routing& routing) {
  std::vector<at::Tensor> out;
  const auto pieces = at::split_with_sizes(rows_MD, routing.count_E);
  for (size_t e = 0; e < pieces.size(); ++e) {
    out.push_back(pieces[e] * static_cast<double>(e + 1));
  }
  return at::cat(out);
}

/// The same without grouping, by ATen and its autograd alone.
at::Tensor plainly(const at::Tensor& x, const at::Tensor& logits, bool normalised) {
  const at::Tensor probabilities = at::softmax(logits, 1);
  auto [weights, chosen] = probabilities.topk(kChoices, 1);
  if (normalised) {
    weights = weights / weights.sum(1, true);
  }
  return x * (weights * (chosen + 1).to(at::kFloat)).sum(1, true);
}

at::Tensor plain_aux(const at::Tensor& logits) {
  const at::Tensor probabilities = at::softmax(logits, 1);
  const auto chosen = std::get<1>(probabilities.topk(kChoices, 1));
  const at::Tensor share =
      at::bincount(chosen.reshape({-1}), {}, kExperts).to(at::kFloat) / static_cast<double>(kRows);
  return (share * probabilities.mean(0)).sum() * kExperts;
}

struct Leaves {
  at::Tensor x = at::randn({kRows, kWidth}).requires_grad_();
  at::Tensor logits = at::randn({kRows, kExperts}).requires_grad_();
};

TEST(Experts, GroupedRowsGiveTheSumsAndGradientsOfThePlainFormula) {
  for (const bool normalised : {true, false}) {
    at::manual_seed(1);
    Leaves ours;
    Leaves theirs;
    theirs.x = ours.x.detach().clone().requires_grad_();
    theirs.logits = ours.logits.detach().clone().requires_grad_();
    const at::Tensor weight = at::randn({kRows, kWidth});

    const Routing routing = route(ours.logits, kChoices, normalised, nullptr);
    const at::Tensor out = combine(by_expert(dispatch(ours.x, routing), routing), routing);
    const at::Tensor want = plainly(theirs.x, theirs.logits, normalised);
    torch::autograd::backward({(out * weight).sum()}, {});
    torch::autograd::backward({(want * weight).sum()}, {});

    EXPECT_LT(test::max_difference(out, want), 1e-5);
    EXPECT_LT(test::max_difference(ours.x.grad(), theirs.x.grad()), 1e-5);
    EXPECT_LT(test::max_difference(ours.logits.grad(), theirs.logits.grad()), 1e-5);
  }
}

TEST(Experts, TheBalancingLossHasTheValueAndGradientOfItsFormula) {
  at::manual_seed(2);
  Leaves ours;
  const at::Tensor logits = ours.logits.detach().clone().requires_grad_();
  const double strength = 0.7;
  const auto totals = std::make_shared<RouterTotals>(kExperts, strength);

  const Routing routing = route(ours.logits, kChoices, true, totals);
  const at::Tensor out = combine(dispatch(ours.x.detach(), routing), routing);
  totals->close();
  const at::Tensor zero = (out * 0.0).sum();
  torch::autograd::backward({zero}, {});
  const at::Tensor aux = plain_aux(logits);
  torch::autograd::backward({aux * strength}, {});

  EXPECT_NEAR(totals->loss(), aux.item<double>(), 1e-6);
  EXPECT_LT(test::max_difference(ours.logits.grad(), logits.grad()), 1e-7);
}

TEST(Experts, ClosedTotalsDoNotCountARecomputation) {
  at::manual_seed(3);
  const auto totals = std::make_shared<RouterTotals>(kExperts, 1.0);
  const at::Tensor logits = at::randn({kRows, kExperts});
  route(logits, kChoices, true, totals);
  totals->close();
  const double before = totals->loss();
  route(at::randn({kRows, kExperts}), kChoices, true, totals);
  EXPECT_EQ(totals->loss(), before);
  EXPECT_EQ(RouterTotals(kExperts, 1.0).loss(), 0.0);
}

TEST(Experts, AnExpertWithoutTokensHasNoRows) {
  at::Tensor logits = at::zeros({3, 4});
  logits.select(1, 1).fill_(5.0);
  logits.select(1, 2).fill_(4.0);
  const Routing routing = route(logits, 2, true, nullptr);
  EXPECT_EQ(routing.count_E, (std::vector<int64_t>{0, 3, 3, 0}));
}

}  // namespace
}  // namespace kamerton::tensor
