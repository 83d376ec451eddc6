// SPDX-License-Identifier: Apache-2.0
// Oracle: TRL 1.16's RewardTrainer on stories260K with a score head (fixtures/preference).
#include "kamerton/objective/score.h"

#include <torch/csrc/autograd/autograd.h>

#include "support/expect_error.h"
#include "support/padded_batch.h"
#include "support/policy.h"
#include "support/temporary_folder.h"

namespace kamerton::objective {
namespace {

using test::forget_gradients;
using test::gradient_norm;
using test::max_difference;
using test::oracle_json;
using test::oracle_path;
using test::oracle_tensor;

storage::SafetensorsFile fixture() {
  return storage::SafetensorsFile::open(oracle_path("fixtures/preference/reward.safetensors"));
}

/// stories260K with the fixture's score head.
std::unique_ptr<model::Decoder> make_scorer() {
  model::ModelOptions options;
  options.score_head = true;
  options.score_pad = 2;
  auto decoder = test::make_decoder(options);
  decoder->load_whole();
  decoder->find_parameter("score.weight")
      ->value.detach()
      .copy_(oracle_tensor(fixture(), "score.weight"));
  return decoder;
}

data::Batch pairs(const core::Json& margin) {
  const auto file = fixture();
  const at::Tensor ids_BT = oracle_tensor(file, "input_ids");
  const at::Tensor mask_BT = oracle_tensor(file, "attention_mask");
  const int64_t count = ids_BT.size(0) / 2;
  data::Batch batch;
  for (int64_t p = 0; p < count; ++p) {
    data::Example better = test::flat_example(ids_BT[p], mask_BT[p], ids_BT[p]);
    data::Example worse =
        test::flat_example(ids_BT[p + count], mask_BT[p + count], ids_BT[p + count]);
    better.margin = margin.is_null() ? 0.0 : margin[static_cast<size_t>(p)].get<double>();
    better.rejected = std::make_shared<const data::Example>(worse);
    batch.append(better, p);
  }
  return batch;
}

TEST(RewardLearning, LossScoresAndGradientsEqualTrl) {
  KAMERTON_NEED_ORACLE("fixtures/preference/reward.json");
  const core::Json oracle = oracle_json(oracle_path("fixtures/preference/reward.json"));
  const auto scorer = make_scorer();
  for (const core::Json& entry : oracle["losses"]) {
    const std::string name = entry["name"].get<std::string>();
    ObjectiveConfig config{.method = "reward"};
    config.center_rewards = entry["config"].value("center_rewards_coefficient", 0.0);
    RewardLearning objective(config);
    const data::Batch batch = pairs(entry["margin"]);
    forget_gradients(*scorer);
    const at::Tensor loss = objective.loss(*scorer, batch, Shares::of(objective.counts(batch)));
    torch::autograd::backward({loss}, {});
    EXPECT_NEAR(loss.item<double>(), entry["loss"].get<double>(), 1e-4) << name;
    const double norm = entry["grad_norm"].get<double>();
    EXPECT_NEAR(gradient_norm(*scorer), norm, 1e-3 * norm) << name;
    const at::NoGradGuard no_grad;
    const at::Tensor scores_P2 = sequence_scores(*scorer, batch).view({-1, 2});
    for (size_t p = 0; p < 6; ++p) {
      const auto row = static_cast<int64_t>(p);
      EXPECT_NEAR(scores_P2[row][0].item<double>(), entry["chosen_rewards"][p].get<double>(), 1e-4);
      EXPECT_NEAR(
          scores_P2[row][1].item<double>(), entry["rejected_rewards"][p].get<double>(), 1e-4);
    }
    if (name == "bradley_terry") {
      const at::Tensor expected = oracle_tensor(fixture(), "grad.score.weight");
      EXPECT_LT(max_difference(scorer->find_parameter("score.weight")->accumulator(), expected),
                1e-4 + 1e-4 * expected.abs().max().item<double>());
    }
    const std::vector<MetricSum> metrics = objective.take_metrics();
    EXPECT_NEAR(metrics[0].sum / metrics[0].count, 1.0 / 3.0, 1e-6);  // 2 of 6 pairs
  }
}

TEST(RewardLearning, LossAndItsGradientsEqualTheFormulaInDoublePrecision) {
  const auto values = [](std::vector<double> list) { return at::tensor(list, at::kDouble); };
  const at::Tensor better = values({0.3, -1.2, 2.0}).requires_grad_(true);
  const at::Tensor worse = values({0.1, 0.4, -0.7});
  const at::Tensor margin = values({0.0, 0.5, 1.0});
  const at::Tensor losses = bradley_terry(better, worse, margin, 0.01);
  torch::autograd::backward({losses.sum()}, {});
  for (int64_t i = 0; i < 3; ++i) {
    const double w = better[i].item<double>();
    const double l = worse[i].item<double>();
    const double x = w - l - margin[i].item<double>();
    EXPECT_NEAR(
        losses[i].item<double>(), std::log1p(std::exp(-x)) + 0.01 * (w + l) * (w + l), 1e-12);
    EXPECT_NEAR(better.grad()[i].item<double>(), -1 / (1 + std::exp(x)) + 0.02 * (w + l), 1e-12);
  }
}

TEST(StepRewardLearning, LossEqualsBinaryCrossEntropyAtTheStepsEnds) {
  KAMERTON_NEED_ORACLE("fixtures/preference/reward.json");
  const auto scorer = make_scorer();
  data::Batch batch = pairs(core::Json());
  std::fill(batch.targets.begin(), batch.targets.end(), int64_t{data::kNoTarget});
  batch.targets[3] = 1;
  batch.targets[7] = 0;
  batch.targets[batch.targets.size() - 2] = 1;
  StepRewardLearning objective;
  const at::Tensor loss = objective.loss(*scorer, batch, Shares::of({.targets = 3}));
  torch::autograd::backward({loss}, {});
  EXPECT_GT(gradient_norm(*scorer), 0.0);
  const at::NoGradGuard no_grad;
  const at::Tensor scores = scorer->logits(scorer->forward(to_tokens(batch).rows)).squeeze(1);
  double expected = 0;
  for (const auto& [row, good] : {std::pair<int64_t, bool>{3, true},
                                  {7, false},
                                  {static_cast<int64_t>(batch.targets.size()) - 2, true}}) {
    const double z = scores[row].item<double>();
    expected += std::log1p(std::exp(good ? -z : z)) / 3;
  }
  EXPECT_NEAR(loss.item<double>(), expected, 1e-5);
}

TEST(Scorer, SavedModelIsASequenceClassifierAndReadsBackWithEqualBits) {
  KAMERTON_NEED_ORACLE("fixtures/preference/reward.json");
  const auto scorer = make_scorer();
  const test::TemporaryFolder folder;
  model::save_model(folder.path().string(), *scorer, model::SaveOptions{});
  const core::Json config = oracle_json(folder.path() / "config.json");
  EXPECT_EQ(config["architectures"][0], "LlamaForSequenceClassification");
  EXPECT_EQ(config["id2label"].size(), 1U);
  model::ModelOptions options;
  options.path = folder.path().string();
  options.dtype = "fp32";
  model::Decoder again(model::read_config(options.path), options);
  EXPECT_TRUE(again.config().score_head);
  again.load_whole();
  const data::Batch batch = pairs(core::Json());
  const at::NoGradGuard no_grad;
  EXPECT_TRUE(at::equal(sequence_scores(*scorer, batch), sequence_scores(again, batch)));
  test::expect_error(
      core::ErrorKind::Config, {"score"}, [&] { model::require_tokens(again.config(), "test"); });
}

}  // namespace
}  // namespace kamerton::objective
