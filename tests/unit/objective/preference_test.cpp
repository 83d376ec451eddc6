// SPDX-License-Identifier: Apache-2.0
// Oracle: TRL 1.16's trainers on stories260K (fixtures/preference): losses, metrics, gradients.
#include "kamerton/objective/preference.h"

#include <torch/csrc/autograd/autograd.h>

#include "kamerton/model/weights.h"
#include "kamerton/tuning/peft_format.h"

#include "support/oracle.h"
#include "support/padded_batch.h"
#include "support/policy.h"

namespace kamerton::objective {
namespace {

using test::Adapted;
using test::forget_gradients;
using test::gradient_norm;
using test::make_decoder;
using test::make_policy;
using test::max_difference;
using test::oracle_json;
using test::oracle_path;
using test::oracle_tensor;

/// The fixture's rows (better answers, then worse ones) as pairs.
data::Batch pairs_of(const at::Tensor& ids_BT,
                     const at::Tensor& mask_BT,
                     const at::Tensor& labels_BT,
                     int64_t first,
                     int64_t count) {
  std::vector<int64_t> order;
  for (int64_t p = first; p < first + count; ++p) {
    order.push_back(p);
    order.push_back(p + ids_BT.size(0) / 2);
  }
  const at::Tensor rows = at::tensor(order, at::kLong);
  return test::flat_batch(
      ids_BT.index_select(0, rows), mask_BT.index_select(0, rows), labels_BT.index_select(0, rows));
}

data::Batch dpo_batch(int64_t first = 0, int64_t count = 6) {
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/dpo.safetensors"));
  const at::Tensor ids_BT = oracle_tensor(file, "input_ids");
  const at::Tensor labels_BT =
      at::where(oracle_tensor(file, "completion_mask") == 1, ids_BT, data::kNoTarget);
  return pairs_of(ids_BT, oracle_tensor(file, "attention_mask"), labels_BT, first, count);
}

ObjectiveConfig config_of(const core::Json& entry) {
  const core::Json& c = entry["config"];
  ObjectiveConfig config{.method = "dpo"};
  if (c.contains("loss_type")) {
    config.loss = c["loss_type"].is_array() ? c["loss_type"].get<std::vector<std::string>>()
                                            : std::vector{c["loss_type"].get<std::string>()};
  }
  config.loss_weights = c.value("loss_weights", std::vector<double>{});
  config.beta = c["beta"].get<double>();
  config.label_smoothing = c.value("label_smoothing", 0.0);
  config.discopop_tau = c.value("discopop_tau", 0.05);
  const std::string divergence = c.value("f_divergence_type", std::string("reverse_kl"));
  config.f_divergence =
      divergence.ends_with("_divergence") ? divergence.substr(0, divergence.find('_')) : divergence;
  config.f_alpha = c.value("f_alpha_divergence_coef", 1.0);
  if (c.contains("ld_alpha")) {
    config.ld_alpha = c["ld_alpha"].get<double>();
  }
  config.weighting = c.value("use_weighting", false);
  config.simpo_gamma = c.value("simpo_gamma", 0.5);
  config.cpo_alpha = c.value("cpo_alpha", 1.0);
  config.alphapo_alpha = c.value("alpha", 0.0);
  return config;
}

void expect_equal(const core::Json& entry,
                  model::Decoder& policy,
                  Preference& objective,
                  const data::Batch& batch) {
  const std::string name = entry["name"].get<std::string>();
  forget_gradients(policy);
  const at::Tensor loss = objective.loss(policy, batch, Shares::of(objective.counts(batch)));
  torch::autograd::backward({loss}, {});
  const double expected = entry["loss"].get<double>();
  EXPECT_NEAR(loss.item<double>(), expected, 1e-4 + 2e-5 * std::abs(expected)) << name;
  const double norm = entry["grad_norm"].get<double>();
  EXPECT_NEAR(gradient_norm(policy), norm, 1e-3 * norm) << name;
  const std::vector<MetricSum> sums = objective.take_metrics();
  const std::vector<std::string> names = objective.metric_names();
  for (size_t i = 0; i < names.size(); ++i) {
    const double value = entry[names[i]].get<double>();
    EXPECT_NEAR(sums[i].sum / sums[i].count, value, 1e-3 + 1e-4 * std::abs(value))
        << name << " " << names[i];
  }
}

TEST(Preference, LossMetricsAndGradientNormEqualTrlForDpo) {
  KAMERTON_NEED_ORACLE("fixtures/preference/dpo.json");
  const auto policy = make_policy();
  const auto start = make_decoder();
  start->load_whole();
  OtherModel reference(*start);
  const data::Batch batch = dpo_batch();
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/dpo.json"));
  for (const core::Json& entry : oracle["losses"]) {
    if (!entry.contains("grad_norm") || entry["name"] == "sft") {  // sft alone compares nothing
      continue;
    }
    Preference objective(config_of(entry), &reference);
    expect_equal(entry, *policy, objective, batch);
  }
}

TEST(Preference, GradientsEqualTrlTensorByTensor) {
  KAMERTON_NEED_ORACLE("fixtures/preference/dpo.safetensors");
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/dpo.safetensors"));
  const auto policy = make_policy();
  const auto start = make_decoder();
  start->load_whole();
  OtherModel reference(*start);
  Preference objective({.method = "dpo"}, &reference);
  // Two micro-batches of unequal size add up to the gradient of one.
  const Counts counts{.pairs = 6};
  for (const data::Batch& batch : {dpo_batch(0, 2), dpo_batch(2, 4)}) {
    torch::autograd::backward({objective.loss(*policy, batch, Shares::of(counts))}, {});
  }
  int compared = 0;
  for (const auto& parameter : policy->parameters()) {
    const at::Tensor expected = oracle_tensor(file, "grad.sigmoid." + parameter->name);
    if (parameter->adapter || !expected.defined()) {
      continue;
    }
    EXPECT_LT(max_difference(parameter->accumulator(), expected),
              1e-4 + 1e-4 * expected.abs().max().item<double>())
        << parameter->name;
    ++compared;
  }
  EXPECT_EQ(compared, 19);
}

TEST(Preference, LossMetricsAndGradientNormEqualTrlWithoutReference) {
  KAMERTON_NEED_ORACLE("fixtures/preference/orpo_cpo.json");
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/orpo_cpo.safetensors"));
  const auto policy = make_policy();
  const at::Tensor labels_BT = oracle_tensor(file, "concatenated_labels");
  const data::Batch batch = pairs_of(oracle_tensor(file, "concatenated_input_ids"),
                                     oracle_tensor(file, "concatenated_attention_mask"),
                                     labels_BT,
                                     0,
                                     labels_BT.size(0) / 2);
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/orpo_cpo.json"));
  for (const core::Json& entry : oracle["losses"]) {
    ObjectiveConfig config = config_of(entry);
    config.method = entry["name"] == "orpo" ? "orpo" : "cpo";
    Preference objective(config, nullptr);
    expect_equal(entry, *policy, objective, batch);
  }
}

TEST(Preference, ReferenceIsTheBaseModelWhenTheAdapterIsOff) {
  KAMERTON_NEED_ORACLE("fixtures/training/lora_final");
  Adapted adapted;
  const auto start = make_decoder();
  start->load_whole();
  const Tokens tokens = to_tokens(dpo_batch());
  AdapterOff off(*adapted.decoder, *adapted.lora);
  OtherModel other(*start);
  const at::Tensor without = off.log_probs(tokens);
  EXPECT_TRUE(at::equal(without, other.log_probs(tokens)));
  EXPECT_FALSE(without.requires_grad());
  const at::NoGradGuard no_grad;
  const at::Tensor with =
      adapted.decoder->log_probs(adapted.decoder->forward(tokens.rows), tokens.targets_N);
  EXPECT_GT(max_difference(with, without), 0.1);
}

}  // namespace
}  // namespace kamerton::objective
