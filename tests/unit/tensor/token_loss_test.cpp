// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/token_loss.h"

#include "kamerton/tensor/linear.h"

#include "reference.h"
#include "support/expect_error.h"

namespace kamerton::tensor {
namespace {

using test::double_leaf;
using test::largest_difference;
using test::parameter_of;
using test::random_tensor;

struct Scene {
  at::Tensor hidden = random_tensor({45, 24}, 1).requires_grad_(true);
  ParameterPtr head = parameter_of(random_tensor({130, 24}, 2, 0.3));
  at::Tensor targets = at::arange(45).mul(37).remainder(130);

  Scene() { targets.slice(0, 0, 45, 4).fill_(kIgnoredTarget); }
};

/// -log p of the rows with a target, in double precision.
at::Tensor naive_nll(const at::Tensor& hidden,
                     const at::Tensor& head,
                     const at::Tensor& targets,
                     const TokenLossOptions& options) {
  at::Tensor z = at::matmul(hidden, head.t()) * options.logit_scale;
  if (options.soft_cap > 0) {
    z = options.soft_cap * at::tanh(z / options.soft_cap);
  }
  const at::Tensor rows = targets.ne(kIgnoredTarget);
  const at::Tensor picked =
      at::log_softmax(z, 1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  return -picked * rows.to(at::kDouble);
}

class TokenLossCases : public testing::TestWithParam<TokenLossOptions> {};

TEST_P(TokenLossCases, LossAndGradientsEqualTheFormulaInDoublePrecision) {
  const Scene s;
  const TokenLossOptions& options = GetParam();
  const at::Tensor h64 = double_leaf(s.hidden);
  const at::Tensor w64 = double_leaf(s.head->value);
  at::Tensor nll = naive_nll(h64, w64, s.targets, options);
  const double plain_sum = nll.sum().item<double>();
  if (options.weights_N.defined()) {
    nll = nll * options.weights_N.to(at::kDouble);
  }
  const at::Tensor want = nll.sum() * options.scale;
  torch::autograd::backward({want}, {});

  const TokenLoss got = token_loss(s.hidden, s.head, s.targets, options);
  torch::autograd::backward({got.loss}, {});

  EXPECT_NEAR(got.loss.item<double>(), want.item<double>(), 1e-5 * want.item<double>());
  EXPECT_NEAR(got.nll_sum, plain_sum, 1e-5 * plain_sum);
  EXPECT_EQ(got.targets, 33);
  EXPECT_LT(largest_difference(s.hidden.grad(), h64.grad()), 2e-6);
  EXPECT_LT(largest_difference(s.head->value.grad(), w64.grad()), 2e-5);
}

TokenLossOptions with(double scale, int64_t chunk, bool weights, double logit_scale, double cap) {
  TokenLossOptions options;
  options.scale = scale;
  options.chunk_rows = chunk;
  options.logit_scale = logit_scale;
  options.soft_cap = cap;
  if (weights) {
    options.weights_N = at::arange(45).to(at::kFloat) * 0.1;
  }
  return options;
}

INSTANTIATE_TEST_SUITE_P(Options,
                         TokenLossCases,
                         testing::Values(with(1, 0, false, 1, 0),
                                         with(0.03, 8, false, 1, 0),
                                         with(0.5, 7, true, 1, 0),
                                         with(1, 16, false, 0.4, 0),
                                         with(1, 0, false, 1, 3.0),
                                         with(1, 5, true, 2, 3.0)));

TEST(TokenLoss, CountsArgMaxEqualToTheTarget) {
  const Scene s;
  TokenLossOptions options;
  options.count_correct = true;
  const at::Tensor best = at::matmul(s.hidden, s.head->value.t()).argmax(1);
  at::Tensor targets = best.clone();
  targets.slice(0, 0, 10).add_(1).remainder_(130);
  targets[44] = kIgnoredTarget;
  const at::NoGradGuard no_grad;
  EXPECT_EQ(token_loss(s.hidden, s.head, targets, options).correct, 34);
}

TEST(TokenLoss, RowsWithoutTargetMayHoldAnything) {
  const Scene s;
  const at::NoGradGuard no_grad;
  at::Tensor poisoned = s.hidden.detach().clone();
  poisoned.masked_fill_(s.targets.eq(kIgnoredTarget).unsqueeze(1), std::nan(""));
  EXPECT_EQ(token_loss(poisoned, s.head, s.targets).loss.item<float>(),
            token_loss(s.hidden, s.head, s.targets).loss.item<float>());
}

TEST(TokenLoss, NoTargetAtAllIsALossOfZero) {
  const Scene s;
  const TokenLoss loss = token_loss(s.hidden, s.head, at::full({45}, kIgnoredTarget, at::kLong));
  torch::autograd::backward({loss.loss}, {});
  EXPECT_EQ(loss.loss.item<float>(), 0.0f);
  EXPECT_EQ(s.hidden.grad().abs().max().item<float>(), 0.0f);
}

TEST(TokenLoss, AFrozenHeadGetsNoGradient) {
  const Scene s;
  const ParameterPtr frozen = parameter_of(s.head->value, false);
  const TokenLoss loss = token_loss(s.hidden, frozen, s.targets);
  torch::autograd::backward({loss.loss}, {});
  EXPECT_FALSE(frozen->value.grad().defined());
  EXPECT_TRUE(s.hidden.grad().defined());
}

TEST(TokenLoss, RefusesToBeScaledAfterwards) {
  const Scene s;
  const TokenLoss loss = token_loss(s.hidden, s.head, s.targets);
  test::expect_error(core::ErrorKind::Internal, {"root of backward", "0.5"}, [&] {
    torch::autograd::backward({loss.loss * 0.5}, {});
  });
}

TEST(TokenLoss, RefusesTargetsOutsideTheVocabulary) {
  const Scene s;
  s.targets[5] = 130;
  test::expect_error(core::ErrorKind::Data, {"outside the vocabulary", "id 130", "0 to 129"}, [&] {
    token_loss(s.hidden, s.head, s.targets);
  });
}

TEST(TokenLoss, BfloatStaysNearFloat) {
  const Scene s;
  const ParameterPtr narrow = parameter_of(s.head->value.detach().to(at::kBFloat16));
  const at::Tensor hidden = s.hidden.detach().to(at::kBFloat16).requires_grad_(true);
  const double want = token_loss(s.hidden, s.head, s.targets).loss.item<double>();
  const TokenLoss got = token_loss(hidden, narrow, s.targets);
  torch::autograd::backward({got.loss}, {});
  EXPECT_NEAR(got.loss.item<double>(), want, 0.01 * want);
  EXPECT_EQ(narrow->value.grad().scalar_type(), at::kFloat);
  EXPECT_LT(largest_difference(narrow->value.grad(), s.head->value.grad()), 0.05);
}

TEST(TokenLogProbs, ValueAndGradientEqualTheFormulaInDoublePrecision) {
  for (const auto& options : {with(1, 0, false, 1, 0), with(1, 6, false, 0.5, 2.0)}) {
    const Scene s;
    const at::Tensor upstream = random_tensor({45}, 8);
    const at::Tensor h64 = double_leaf(s.hidden);
    const at::Tensor w64 = double_leaf(s.head->value);
    const at::Tensor want = -naive_nll(h64, w64, s.targets, options);
    test::backward(want, upstream);

    const at::Tensor got = token_log_probs(s.hidden, s.head, s.targets, options);
    test::backward(got, upstream);

    EXPECT_LT(largest_difference(got, want), 1e-5);
    EXPECT_LT(largest_difference(s.hidden.grad(), h64.grad()), 5e-6);
    EXPECT_LT(largest_difference(s.head->value.grad(), w64.grad()), 2e-5);
  }
}

TEST(Linear, GradientsEqualTheFormulaAndFrozenPartsCostNothing) {
  const at::Tensor x = random_tensor({40, 24}, 1).requires_grad_(true);
  const ParameterPtr w = parameter_of(random_tensor({30, 24}, 2));
  const ParameterPtr b = parameter_of(random_tensor({30}, 3));
  const at::Tensor dy = random_tensor({40, 30}, 4);
  const at::Tensor x64 = double_leaf(x);
  const at::Tensor w64 = double_leaf(w->value);
  const at::Tensor b64 = double_leaf(b->value);
  test::backward(at::matmul(x64, w64.t()) + b64, dy);

  test::backward(linear(x, w, b), dy);
  test::backward(linear(x, parameter_of(w->value, false), parameter_of(b->value, false)), dy);

  EXPECT_LT(largest_difference(w->value.grad(), w64.grad()), 1e-5);
  EXPECT_LT(largest_difference(b->value.grad(), b64.grad()), 1e-5);
  EXPECT_LT(largest_difference(x.grad(), 2 * x64.grad()), 1e-4);  // two uses
}

TEST(Linear, AddsIntoAGivenAccumulator) {
  const ParameterPtr w = parameter_of(random_tensor({5, 4}, 2).to(at::kBFloat16));
  w->gradient = at::ones({5, 4});
  w->value.mutable_grad() = w->gradient;
  const at::Tensor x = at::ones({3, 4}, at::kBFloat16);
  test::backward(linear(x, w), at::ones({3, 5}));
  EXPECT_TRUE(at::equal(w->gradient, at::full({5, 4}, 4.0f)));
}

TEST(Embedding, AddsTheRowsOfRepeatedTokens) {
  const ParameterPtr w = parameter_of(random_tensor({10, 70}, 2));
  const at::Tensor tokens = at::tensor({3, 1, 3, 9, 3}, at::kLong);
  const at::Tensor dy = random_tensor({5, 70}, 3);
  const at::Tensor w64 = double_leaf(w->value);
  test::backward(w64.index_select(0, tokens), dy);

  const at::Tensor out = embedding(tokens, w);
  test::backward(out, dy);

  EXPECT_TRUE(at::equal(out.detach(), w->value.detach().index_select(0, tokens)));
  EXPECT_LT(largest_difference(w->value.grad(), w64.grad()), 1e-6);
}

}  // namespace
}  // namespace kamerton::tensor
