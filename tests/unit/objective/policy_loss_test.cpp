// SPDX-License-Identifier: Apache-2.0
// Oracle: TRL 1.16's GRPO losses and advantages, and PPO's formulas in float64
// (fixtures/preference).
#include "kamerton/objective/policy_loss.h"

#include <torch/csrc/autograd/autograd.h>

#include "support/oracle.h"

namespace kamerton::objective {
namespace {

using test::max_difference;
using test::oracle_json;
using test::oracle_path;
using test::oracle_tensor;

at::Tensor doubles(const storage::SafetensorsFile& file, const std::string& name) {
  const storage::TensorEntry* entry = file.find(name);
  at::Tensor tensor = at::empty(entry->shape, at::kDouble);
  std::memcpy(tensor.mutable_data_ptr(), file.bytes(*entry).data(), entry->size);
  return tensor;
}

struct Padded {
  explicit Padded(const at::Tensor& mask_BT)
      : mask(mask_BT.to(at::kBool)),
        answer_M(at::arange(mask_BT.size(0), at::kLong)
                     .unsqueeze(1)
                     .expand_as(mask_BT)
                     .index({mask})
                     .contiguous()) {}
  at::Tensor rows(const at::Tensor& values_BT) const { return values_BT.index({mask}); }
  at::Tensor mask, answer_M;
};

ObjectiveConfig config_of(const core::Json& entry) {
  ObjectiveConfig config{.method = "grpo"};
  const core::Json& c = entry["config"];
  config.loss = {c["loss_type"].get<std::string>()};
  config.policy.clip = c["epsilon_low"].get<double>();
  config.policy.clip_high = c["epsilon_high"].get<double>();
  config.policy.kl_coef = c.value("beta", 0.0);
  config.policy.ratio = c.value("importance_sampling_level", std::string("token"));
  config.policy.kl_bias_correction = c.value("use_bias_correction_kl", false);
  if (c.contains("delta")) {
    config.policy.delta = c["delta"].get<double>();
  }
  config.rollout.max_new_tokens = c["max_completion_length"].get<int64_t>();
  return config;
}

TEST(PolicyLoss, EqualsTrlWithGradientsForEveryLossOfGrpo) {
  KAMERTON_NEED_ORACLE("fixtures/preference/grpo.json");
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/grpo.safetensors"));
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/grpo.json"));
  const Padded padded(oracle_tensor(file, "mask"));
  const at::Tensor advantage_BT =
      oracle_tensor(file, "advantages.group").unsqueeze(1).expand_as(padded.mask);
  int compared = 0;
  for (const core::Json& entry : oracle["losses"]) {
    const std::string name = entry["name"].get<std::string>();
    const ObjectiveConfig config = config_of(entry);
    PolicyTokens tokens;
    tokens.log_p_M = padded.rows(oracle_tensor(file, "per_token_logps")).requires_grad_(true);
    if (!entry["config"].value("on_policy", false)) {
      tokens.old_log_p_M = padded.rows(oracle_tensor(file, "old_per_token_logps"));
    }
    tokens.ref_log_p_M = padded.rows(oracle_tensor(file, "ref_per_token_logps"));
    tokens.advantage_M = padded.rows(advantage_BT);
    tokens.answer_M = padded.answer_M;
    tokens.answers = 6;
    const at::Tensor loss =
        policy_loss(config, tokens, 1.0 / static_cast<double>(tokens.log_p_M.numel()), 1.0 / 6.0);
    torch::autograd::backward({loss}, {});
    EXPECT_NEAR(loss.item<double>(), entry["loss"].get<double>(), 2e-6) << name;
    EXPECT_LT(
        max_difference(tokens.log_p_M.grad(), padded.rows(oracle_tensor(file, "grad." + name))),
        2e-6)
        << name;
    ++compared;
  }
  EXPECT_EQ(compared, 15);
}

TEST(Advantages, EqualTrlForEveryKind) {
  KAMERTON_NEED_ORACLE("fixtures/preference/grpo.json");
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/grpo.safetensors"));
  const at::Tensor rewards_B = oracle_tensor(file, "rewards").to(at::kDouble);
  const std::vector<double> rewards(rewards_B.const_data_ptr<double>(),
                                    rewards_B.const_data_ptr<double>() + rewards_B.numel());
  for (const char* kind : {"group", "batch", "none", "rloo", "rloo_normalized"}) {
    const std::vector<double> advantages =
        answer_advantages(kind, rewards, std::vector<double>(6, 1.0), 3, comm::Group());
    EXPECT_LT(max_difference(at::tensor(advantages, at::kDouble),
                             oracle_tensor(file, std::string("advantages.") + kind)),
              1e-6)
        << kind;
  }
}

TEST(Advantages, AnswersThatCountForNothingChangeNoOther) {
  const std::vector<double> rewards = {1.0, 0.0, 9.0, 9.0, 0.5, 2.0};
  const std::vector<double> counted = {1, 1, 0, 0, 1, 1};
  for (const char* kind : {"group", "batch", "rloo", "rloo_normalized"}) {
    const auto with = answer_advantages(kind, rewards, counted, 2, comm::Group());
    const auto without = answer_advantages(
        kind, {1.0, 0.0, 0.5, 2.0}, std::vector<double>(4, 1.0), 2, comm::Group());
    EXPECT_EQ(with[2], 0.0);
    EXPECT_DOUBLE_EQ(with[0], without[0]) << kind;
    EXPECT_DOUBLE_EQ(with[5], without[3]) << kind;
  }
}

TEST(Ppo, RewardsAdvantagesLossesAndGradientsEqualTheFormulasInDoublePrecision) {
  KAMERTON_NEED_ORACLE("fixtures/preference/ppo.json");
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/ppo.safetensors"));
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/ppo.json"));
  const Padded padded(oracle_tensor(file, "mask"));
  const at::Tensor lengths_B = padded.mask.sum(1);
  const at::Tensor rewards_BT = doubles(file, "rewards");
  const at::Tensor old_values_BT = doubles(file, "old_values");
  std::vector<std::vector<double>> advantages;
  std::vector<double> returns;
  for (int64_t b = 0; b < 4; ++b) {
    const int64_t n = lengths_B[b].item<int64_t>();
    const auto row = [&](const at::Tensor& values_BT) {
      const double* begin = values_BT[b].const_data_ptr<double>();
      return std::vector<double>(begin, begin + n);
    };
    const Estimate estimate = estimate_advantages(row(rewards_BT),
                                                  row(old_values_BT),
                                                  oracle["gamma"].get<double>(),
                                                  oracle["lam"].get<double>());
    for (int64_t t = 0; t < n; ++t) {
      EXPECT_NEAR(estimate.advantages[static_cast<size_t>(t)],
                  doubles(file, "advantages")[b][t].item<double>(),
                  1e-10);
    }
    advantages.push_back(estimate.advantages);
    returns.insert(returns.end(), estimate.returns.begin(), estimate.returns.end());
  }
  whiten(advantages, comm::Group());
  std::vector<double> flat;
  for (const auto& one : advantages) {
    flat.insert(flat.end(), one.begin(), one.end());
  }
  PolicyTokens tokens;
  tokens.log_p_M = padded.rows(doubles(file, "new_logps")).requires_grad_(true);
  tokens.old_log_p_M = padded.rows(doubles(file, "old_logps"));
  tokens.advantage_M = at::tensor(flat, at::kDouble);
  tokens.answer_M = padded.answer_M;
  tokens.answers = 4;
  EXPECT_LT(max_difference(tokens.advantage_M, padded.rows(doubles(file, "whitened_advantages"))),
            1e-10);
  const at::Tensor return_M = at::tensor(returns, at::kDouble);
  EXPECT_LT(max_difference(return_M, padded.rows(doubles(file, "returns"))), 1e-10);
  at::Tensor value_M = padded.rows(doubles(file, "new_values")).requires_grad_(true);
  PolicyConfig config;
  config.clip = oracle["clip"].get<double>();
  config.value_clip = oracle["value_clip"].get<double>();
  const at::Tensor policy = ppo_policy_losses(config, tokens).mean();
  const at::Tensor value =
      ppo_value_losses(config, value_M, padded.rows(old_values_BT), return_M).mean();
  torch::autograd::backward({policy + oracle["vf_coef"].get<double>() * value}, {});
  EXPECT_NEAR(policy.item<double>(), oracle["policy_loss"].get<double>(), 1e-10);
  EXPECT_NEAR(value.item<double>(), oracle["value_loss"].get<double>(), 1e-10);
  EXPECT_LT(max_difference(tokens.log_p_M.grad(), padded.rows(doubles(file, "grad_new_logps"))),
            1e-10);
  EXPECT_LT(max_difference(value_M.grad(), padded.rows(doubles(file, "grad_new_values"))), 1e-10);
}

TEST(Ppo, AdvantagesEqualTheDoubleSumOfTheirDefinition) {
  const std::vector<double> rewards = {0.1, -0.3, 0.0, 2.0};
  const std::vector<double> values = {0.5, 0.2, -0.4, 1.1};
  const Estimate estimate = estimate_advantages(rewards, values, 0.9, 0.8);
  for (size_t t = 0; t < 4; ++t) {
    double expected = 0;
    for (size_t l = t; l < 4; ++l) {
      const double next = l + 1 < 4 ? values[l + 1] : 0.0;
      expected +=
          std::pow(0.9 * 0.8, static_cast<double>(l - t)) * (rewards[l] + 0.9 * next - values[l]);
    }
    EXPECT_NEAR(estimate.advantages[t], expected, 1e-12);
  }
}

TEST(Divergence, EstimatorsEqualTheirDefinitions) {
  const at::Tensor p = at::tensor({-1.0, -2.0}, at::kDouble);
  const at::Tensor r = at::tensor({-1.5, -1.2}, at::kDouble);
  EXPECT_LT(max_difference(kl_estimate("k1", p, r), p - r), 1e-15);
  EXPECT_LT(max_difference(kl_estimate("k2", p, r), 0.5 * (p - r) * (p - r)), 1e-15);
  EXPECT_LT(max_difference(kl_estimate("k3", p, r), at::exp(r - p) - (r - p) - 1), 1e-15);
}

}  // namespace
}  // namespace kamerton::objective
