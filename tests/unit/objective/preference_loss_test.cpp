// SPDX-License-Identifier: Apache-2.0
// Oracle: TRL 1.16 (fixtures/preference), DPO's values of two independent computations in float64.
#include "kamerton/objective/preference_loss.h"

#include <numbers>

#include <torch/csrc/autograd/autograd.h>

#include "support/expect_error.h"
#include "support/oracle.h"

namespace kamerton::objective {
namespace {

using test::max_difference;
using test::oracle_json;
using test::oracle_path;
using test::oracle_tensor;

at::Tensor numbers(const core::Json& list) {
  std::vector<double> values;
  for (const core::Json& value : list) {
    values.push_back(value.get<double>());
  }
  return at::tensor(values, at::kDouble);
}

/// The sums of a row's tokens; those beyond the shorter answer of the pair count `tail`.
at::Tensor sums(const at::Tensor& logps_BT, const at::Tensor& mask_BT, double tail) {
  const at::Tensor position_BT = mask_BT.cumsum(1);
  const at::Tensor lengths_B = mask_BT.sum(1);
  const auto halves = lengths_B.chunk(2);
  const at::Tensor shared_P = at::minimum(halves[0], halves[1]);
  const at::Tensor shared_B = at::cat({shared_P, shared_P}).unsqueeze(1);
  const at::Tensor weight = at::where(position_BT <= shared_B, 1.0, tail);
  return (logps_BT.to(at::kDouble) * mask_BT * weight).sum(1);
}

PairLogProbs pairs_of(const storage::SafetensorsFile& file, double tail) {
  const at::Tensor mask_BT = oracle_tensor(file, "completion_mask").slice(1, 1);
  const auto policy = sums(oracle_tensor(file, "policy_token_logps"), mask_BT, tail).chunk(2);
  const auto reference = sums(oracle_tensor(file, "ref_token_logps"), mask_BT, tail).chunk(2);
  const auto lengths = mask_BT.sum(1).to(at::kDouble).chunk(2);
  return {policy[0], policy[1], reference[0], reference[1], lengths[0], lengths[1]};
}

ObjectiveConfig dpo_config(const core::Json& entry) {
  ObjectiveConfig config{.method = "dpo"};
  const core::Json& c = entry["config"];
  if (c.contains("loss_type")) {
    config.loss = c["loss_type"].get<std::vector<std::string>>();
  } else {
    config.loss = {"cdpo"};  // the entry that is by formula
  }
  if (c.contains("loss_weights")) {
    config.loss_weights = c["loss_weights"].get<std::vector<double>>();
  }
  config.beta = c["beta"].get<double>();
  config.label_smoothing = c.value("label_smoothing", 0.0);
  config.discopop_tau = c.value("discopop_tau", 0.05);
  const std::string divergence = c.value("f_divergence_type", std::string("reverse_kl"));
  config.f_divergence = divergence.starts_with("js")      ? "js"
                        : divergence.starts_with("alpha") ? "alpha"
                                                          : divergence;
  config.f_alpha = c.value("f_alpha_divergence_coef", 1.0);
  if (c.contains("ld_alpha")) {
    config.ld_alpha = c["ld_alpha"].get<double>();
  }
  return config;
}

TEST(PreferenceLoss, EqualsTrlForEveryLossOfDpo) {
  KAMERTON_NEED_ORACLE("fixtures/preference/dpo.json");
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/dpo.safetensors"));
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/dpo.json"));
  int compared = 0;
  for (const core::Json& entry : oracle["losses"]) {
    const std::string name = entry["name"].get<std::string>();
    if (name == "wpo" || name == "sft") {  // need more than answers' sums: see the objective's test
      continue;
    }
    const ObjectiveConfig config = dpo_config(entry);
    validate(config);
    const PairLogProbs pairs = pairs_of(file, config.ld_alpha.value_or(1.0));
    const at::Tensor losses = dpo_losses(config, pairs);
    const at::Tensor likelihood =
        likelihood_weight(config) * -pairs.chosen_P.sum() / pairs.chosen_tokens_P.sum();
    const double expected = entry["loss"].get<double>();
    EXPECT_NEAR(
        (losses.mean() + likelihood).item<double>(), expected, 1e-4 + 2e-5 * std::abs(expected))
        << name;
    if (entry.contains("loss_per_pair")) {
      const at::Tensor each = numbers(entry["loss_per_pair"]);
      EXPECT_LT(((losses - each).abs() / (1 + each.abs())).max().item<double>(), 1e-4) << name;
    }
    ++compared;
  }
  EXPECT_EQ(compared, 21);
}

TEST(PreferenceLoss, EqualsTrlForCpoSimpoAlphapoAndOrpo) {
  KAMERTON_NEED_ORACLE("fixtures/preference/orpo_cpo.json");
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/orpo_cpo.json"));
  for (const core::Json& entry : oracle["losses"]) {
    const core::Json& c = entry["config"];
    ObjectiveConfig config{.method = "dpo"};
    config.method = entry["name"] == "orpo" ? "orpo" : "cpo";
    if (c.contains("loss_type")) {
      config.loss = {c["loss_type"].get<std::string>()};
    }
    config.beta = c["beta"].get<double>();
    config.simpo_gamma = c.value("simpo_gamma", 0.5);
    config.label_smoothing = c.value("label_smoothing", 0.0);
    config.alphapo_alpha = c.value("alpha", 0.0);
    validate(config);
    // The file gives sums or means, as the method uses them: with lengths of 1 they are both.
    const at::Tensor ones = at::ones({6}, at::kDouble);
    const PairLogProbs pairs = {numbers(entry["policy_chosen_logps"]),
                                numbers(entry["policy_rejected_logps"]),
                                {},
                                {},
                                ones,
                                ones};
    const at::Tensor losses = pair_losses(config, pairs);
    const core::Json& each =
        entry.contains("loss_per_pair") ? entry["loss_per_pair"] : entry["loss_per_pair_odds_term"];
    EXPECT_LT(((losses - numbers(each)).abs() / (1 + numbers(each).abs())).max().item<double>(),
              1e-4)
        << entry["name"];
    const auto [chosen, rejected] = implicit_rewards(config, pairs);
    EXPECT_NEAR(chosen.mean().item<double>(), entry["rewards/chosen"].get<double>(), 1e-3);
    EXPECT_NEAR(rejected.mean().item<double>(), entry["rewards/rejected"].get<double>(), 1e-3);
  }
}

/// Values of the shared reference, section 12.5: computed twice in float64.
TEST(PreferenceLoss, EqualsPublishedValuesInDoublePrecision) {
  const PairLogProbs pairs = {at::tensor({-3.0, -2.5, -4.0, -1.5}, at::kDouble),
                              at::tensor({-5.0, -3.5, -6.0, -2.5}, at::kDouble),
                              at::tensor({-2.8, -2.3, -3.8, -1.4}, at::kDouble),
                              at::tensor({-3.2, -2.7, -4.2, -1.8}, at::kDouble),
                              at::tensor({10.0, 8.0, 12.0, 5.0}, at::kDouble),
                              at::tensor({12.0, 9.0, 10.0, 7.0}, at::kDouble)};
  const auto expect = [&](const std::string& loss, double smoothing, std::vector<double> values) {
    ObjectiveConfig config{.method = "dpo"};
    config.loss = {loss};
    config.label_smoothing = smoothing;
    EXPECT_LT(max_difference(dpo_losses(config, pairs), at::tensor(values, at::kDouble)), 1e-6)
        << loss;
  };
  expect("sigmoid", 0, {.616344, .663597, .616344, .663597});
  expect("cdpo", .1, {.632344, .669597, .632344, .669597});
  expect("robust", .1, {.596344, .656097, .596344, .656097});
  expect("hinge", 0, {.84, .94, .84, .94});
  expect("apo_zero", 0, {.960121, .985010, .960121, .985007});
  expect("ipo", 0, {23.7169, 24.365193, 23.393344, 24.2064});
  expect("sigmoid_norm", 0, {.686668, .689958, .685014, .689155});
}

TEST(PreferenceLoss, GradientsEqualFiniteDifferences) {
  const auto values = [](std::vector<double> list) { return at::tensor(list, at::kDouble); };
  const std::vector<std::string> names = {"sigmoid",
                                          "cdpo",
                                          "robust",
                                          "hinge",
                                          "ipo",
                                          "sigmoid_norm",
                                          "exo_pair",
                                          "nca_pair",
                                          "bco_pair",
                                          "sppo_hard",
                                          "aot",
                                          "aot_unpaired",
                                          "apo_zero",
                                          "apo_down",
                                          "discopop"};
  for (const std::string& name : names) {
    ObjectiveConfig config{.method = "dpo"};
    config.loss = {name};
    config.beta = 0.3;
    config.label_smoothing = 0.1;
    PairLogProbs pairs = {values({-3.0, -2.5, -4.1}),
                          values({-5.0, -3.7, -3.0}),
                          values({-2.8, -2.9, -3.8}),
                          values({-3.2, -2.7, -4.2}),
                          values({10, 8, 12}),
                          values({12, 9, 10})};
    pairs.chosen_P.requires_grad_(true);
    torch::autograd::backward({dpo_losses(config, pairs).sum()}, {});
    const at::Tensor gradient = pairs.chosen_P.grad().clone();
    const at::NoGradGuard no_grad;
    const at::Tensor at_point = pairs.chosen_P.detach().clone();
    for (int64_t i = 0; i < 3; ++i) {
      const auto value_at = [&](double step) {
        PairLogProbs moved = pairs;
        moved.chosen_P = at_point.clone();
        moved.chosen_P[i] += step;
        return dpo_losses(config, moved).sum().item<double>();
      };
      EXPECT_NEAR(gradient[i].item<double>(), (value_at(1e-5) - value_at(-1e-5)) / 2e-5, 1e-6)
          << name;
    }
  }
}

TEST(PreferenceLoss, FirstSigmoidLossIsTheLogarithmOfTwo) {
  const at::Tensor logps = at::tensor({-3.0, -40.0}, at::kDouble);
  const PairLogProbs pairs = {logps, 2 * logps, logps, 2 * logps, logps, logps};
  EXPECT_LT(max_difference(dpo_losses({.method = "dpo"}, pairs),
                           at::full({2}, std::numbers::ln2, at::kDouble)),
            1e-12);
}

TEST(ObjectiveConfig, RefusesWhatHasNoEffect) {
  ObjectiveConfig smoothing{.method = "dpo"};
  smoothing.label_smoothing = 0.1;
  test::expect_error(core::ErrorKind::Config, {"no effect"}, [&] { validate(smoothing); });
  ObjectiveConfig weights{.method = "dpo"};
  weights.loss = {"sigmoid", "sft"};
  weights.loss_weights = {1.0};
  test::expect_error(core::ErrorKind::Config, {"does not match"}, [&] { validate(weights); });
  ObjectiveConfig unknown{.method = "dpo"};
  unknown.loss = {"sigmoidal"};
  test::expect_error(core::ErrorKind::Config, {"'sigmoidal'"}, [&] { validate(unknown); });
  ObjectiveConfig alone{.method = "dpo"};
  alone.loss = {"sft"};
  test::expect_error(core::ErrorKind::Config, {"compares"}, [&] { validate(alone); });
  ObjectiveConfig free_of_reference{.method = "dpo"};
  free_of_reference.method = "orpo";
  free_of_reference.reference = "models/other";
  test::expect_error(core::ErrorKind::Config, {"method dpo"}, [&] { validate(free_of_reference); });
}

}  // namespace
}  // namespace kamerton::objective
