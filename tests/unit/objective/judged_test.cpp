// SPDX-License-Identifier: Apache-2.0
// Oracle: TRL 1.16's KTOTrainer on stories260K (fixtures/preference): losses, metrics, gradients.
#include "kamerton/objective/judged.h"

#include <torch/csrc/autograd/autograd.h>

#include "support/padded_batch.h"
#include "support/policy.h"

namespace kamerton::objective {
namespace {

using test::forget_gradients;
using test::gradient_norm;
using test::max_difference;
using test::oracle_json;
using test::oracle_path;
using test::oracle_tensor;

/// fixtures/preference/kto: judged answers (documents 0, 2, ...) beside mismatched ones.
data::Batch judged_batch(const core::Json& examples, int64_t first, int64_t count) {
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/kto.safetensors"));
  const auto rows = [&](const std::string& prefix) {
    const at::Tensor ids_BT = oracle_tensor(file, prefix + "input_ids");
    const at::Tensor labels_BT =
        at::where(oracle_tensor(file, prefix + "completion_mask") == 1, ids_BT, data::kNoTarget);
    return std::tuple(ids_BT, oracle_tensor(file, prefix + "attention_mask"), labels_BT);
  };
  const auto [ids, mask, labels] = rows("");
  const auto [kl_ids, kl_mask, kl_labels] = rows("KL_");
  data::Batch batch;
  for (int64_t b = first; b < first + count; ++b) {
    const auto one = [b](const at::Tensor& all) { return all.narrow(0, b, 1); };
    data::Example example = test::flat_example(one(ids)[0], one(mask)[0], one(labels)[0]);
    example.label = examples[static_cast<size_t>(b)]["label"].get<bool>();
    example.source_index = b;
    example.mismatched = std::make_shared<const data::Example>(
        test::flat_example(one(kl_ids)[0], one(kl_mask)[0], one(kl_labels)[0]));
    batch.append(example, b);
  }
  return batch;
}

ObjectiveConfig config_of(const core::Json& entry) {
  ObjectiveConfig config{.method = "kto"};
  const core::Json& c = entry["config"];
  config.loss = {c["loss_type"].get<std::string>()};
  config.beta = c["beta"].get<double>();
  config.desirable_weight = c.value("desirable_weight", 1.0);
  config.undesirable_weight = c.value("undesirable_weight", 1.0);
  return config;
}

/// In one micro-batch, or in two unequal ones.
void expect_equal(const core::Json& oracle, bool whole) {
  const auto policy = test::make_policy();
  const auto start = test::make_decoder();
  start->load_whole();
  OtherModel reference(*start);
  for (const core::Json& entry : oracle["losses"]) {
    if (!entry.contains("grad_norm")) {
      continue;
    }
    const std::string name = entry["name"].get<std::string>();
    Kto objective(config_of(entry), &reference, nullptr, comm::Group());
    std::vector<data::Batch> batches;
    if (whole) {
      batches.push_back(judged_batch(oracle["examples"], 0, 6));
    } else {
      batches.push_back(judged_batch(oracle["examples"], 0, 2));
      batches.push_back(judged_batch(oracle["examples"], 2, 4));
    }
    batches = objective.prepare(*policy, std::move(batches), {.step = 1});
    forget_gradients(*policy);
    double loss = 0;
    for (const data::Batch& batch : batches) {
      const at::Tensor part = objective.loss(*policy, batch, Shares::of({.pairs = 6}));
      torch::autograd::backward({part}, {});
      loss += part.item<double>();
    }
    EXPECT_NEAR(loss, entry["loss"].get<double>(), 1e-4) << name;
    const double norm = entry["grad_norm"].get<double>();
    EXPECT_NEAR(gradient_norm(*policy), norm, 1e-3 * norm) << name;
    const std::vector<MetricSum> sums = objective.take_metrics();
    const std::vector<std::string> names = objective.metric_names();
    for (size_t i = 0; i < names.size(); ++i) {
      const double value = entry[names[i]].get<double>();
      EXPECT_NEAR(sums[i].sum / sums[i].count, value, 1e-3 + 1e-4 * std::abs(value))
          << name << " " << names[i];
    }
  }
}

TEST(Kto, LossMetricsAndGradientNormEqualTrl) {
  KAMERTON_NEED_ORACLE("fixtures/preference/kto.json");
  expect_equal(oracle_json(oracle_path("fixtures/preference/kto.json")), true);
}

TEST(Kto, MicroBatchesShareOneEstimateOfTheDivergence) {
  KAMERTON_NEED_ORACLE("fixtures/preference/kto.json");
  expect_equal(oracle_json(oracle_path("fixtures/preference/kto.json")), false);
}

TEST(Kto, EqualsTheFormulaWithoutDivergence) {
  KAMERTON_NEED_ORACLE("fixtures/preference/kto.json");
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/kto.json"));
  const core::Json& entry = oracle["losses"][3];
  const auto numbers = [&](const char* key) {
    return at::tensor(entry[key].get<std::vector<double>>(), at::kDouble);
  };
  std::vector<double> good;
  for (const core::Json& label : entry["label"]) {
    good.push_back(label.get<bool>() ? 1 : 0);
  }
  ObjectiveConfig config{.method = "kto"};
  config.beta = entry["config"]["beta"].get<double>();
  const at::Tensor losses =
      judged_losses(config,
                    {numbers("policy_logps"), numbers("ref_logps"), at::tensor(good, at::kDouble)},
                    entry["kl"].get<double>());
  EXPECT_LT(max_difference(losses, numbers("loss_per_example")), 1e-6);
}

TEST(Kto, GradientsEqualFiniteDifferences) {
  ObjectiveConfig config{.method = "kto"};
  config.beta = 0.3;
  config.undesirable_weight = 1.7;
  const at::Tensor point = at::tensor({-3.0, -2.5, -4.1}, at::kDouble);
  const JudgedLogProbs fixed{
      {}, at::tensor({-2.8, -3.3, -4.0}, at::kDouble), at::tensor({1.0, 0.0, 1.0}, at::kDouble)};
  for (const char* loss : {"kto", "apo_zero_unpaired"}) {
    config.loss = {loss};
    JudgedLogProbs answers = fixed;
    answers.policy_D = point.clone().requires_grad_(true);
    torch::autograd::backward({judged_losses(config, answers, 0.4).sum()}, {});
    for (int64_t i = 0; i < 3; ++i) {
      const auto value_at = [&](double step) {
        JudgedLogProbs moved = fixed;
        moved.policy_D = point.clone();
        moved.policy_D[i] += step;
        return judged_losses(config, moved, 0.4).sum().item<double>();
      };
      EXPECT_NEAR(answers.policy_D.grad()[i].item<double>(),
                  (value_at(1e-5) - value_at(-1e-5)) / 2e-5,
                  1e-8)
          << loss;
    }
  }
}

}  // namespace
}  // namespace kamerton::objective
