// SPDX-License-Identifier: Apache-2.0
// Oracle: the definition by whole logits and autograd.
#include "kamerton/objective/replay_divergence.h"

#include <torch/csrc/autograd/autograd.h>

#include "kamerton/objective/distill.h"
#include "kamerton/storage/safetensors.h"

#include "support/expect_error.h"
#include "support/padded_batch.h"
#include "support/policy.h"

namespace kamerton::objective {
namespace {

using test::oracle_path;
using test::oracle_tensor;

/// Documents whose index in the data set is their number.
data::Batch some_text() {
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/dpo.safetensors"));
  const at::Tensor ids_BT = oracle_tensor(file, "input_ids");
  const at::Tensor labels_BT =
      at::where(oracle_tensor(file, "completion_mask") == 1, ids_BT, data::kNoTarget);
  data::Batch batch = test::flat_batch(ids_BT, oracle_tensor(file, "attention_mask"), labels_BT);
  for (size_t d = 0; d < batch.source_indices.size(); ++d) {
    batch.source_indices[d] = static_cast<int64_t>(d);
  }
  return batch;
}

std::unique_ptr<model::Decoder> start_model() {
  auto start = test::make_decoder();
  start->load_whole();
  for (const auto& parameter : start->parameters()) {
    parameter->trainable = false;
    parameter->value.set_requires_grad(false);
  }
  return start;
}

ReplayDivergence::Options odd_ones(bool sharded) {
  return {.weight = 0.4, .sharded = sharded, .is_replayed = [](int64_t index) {
            return index % 2 == 1;
          }};
}

TEST(ReplayDivergence, IsAddedForReplayedTargetsOnly) {
  KAMERTON_NEED_ORACLE("fixtures/training/lora_final");
  const auto model = test::make_policy();
  const auto start = start_model();
  const data::Batch batch = some_text();
  const Tokens tokens = to_tokens(batch);
  std::vector<int64_t> odd_rows;
  for (size_t d = 1; d + 1 < batch.document_offsets.size(); d += 2) {
    for (int64_t n = batch.document_offsets[d]; n < batch.document_offsets[d + 1]; ++n) {
      if (batch.targets[static_cast<size_t>(n)] != data::kNoTarget) {
        odd_rows.push_back(n);
      }
    }
  }
  ASSERT_FALSE(odd_rows.empty());
  const at::Tensor replayed = at::tensor(odd_rows, at::kLong);
  const at::Tensor rows = tokens.targets_N.ne(data::kNoTarget).nonzero().squeeze(1);

  ReplayDivergence objective(odd_ones(false), *start);
  const Shares shares = Shares::of(objective.counts(batch));
  const auto weight_of = [&] { return model->find_parameter("model.layers.2.mlp.up_proj.weight"); };
  const at::Tensor loss = objective.loss(*model, batch, shares);
  torch::autograd::backward({loss}, {});
  const at::Tensor gradient = weight_of()->accumulator().clone();

  test::forget_gradients(*model);
  const at::Tensor hidden = model->forward(tokens.rows);
  at::Tensor before;
  {
    const at::NoGradGuard no_grad;
    before =
        at::log_softmax(start->logits(start->forward(tokens.rows).index_select(0, replayed)), 1);
  }
  const at::Tensor after = at::log_softmax(model->logits(hidden.index_select(0, replayed)), 1);
  const at::Tensor nll = -at::log_softmax(model->logits(hidden.index_select(0, rows)), 1)
                              .gather(1, tokens.targets_N.index_select(0, rows).unsqueeze(1))
                              .mean();
  const at::Tensor apart = (at::exp(before) * (before - after)).sum();
  const at::Tensor expected = nll + 0.4 * apart / static_cast<double>(batch.target_count);
  torch::autograd::backward({expected}, {});

  EXPECT_GT(apart.item<double>(), 0.0);
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-5);
  EXPECT_LT(test::max_difference(gradient, weight_of()->accumulator()),
            1e-4 * gradient.abs().max().item<double>() + 1e-7);
  const std::vector<MetricSum> metrics = objective.take_metrics();
  EXPECT_NEAR(metrics.back().sum, apart.item<double>(), 1e-4 * apart.item<double>());
  EXPECT_EQ(metrics.back().count, static_cast<double>(odd_rows.size()));
}

TEST(ReplayDivergence, OfTheStartModelItselfOrWithoutReplayIsTheTokenLoss) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  const auto model = start_model();
  const auto start = start_model();
  data::Batch batch = some_text();
  const at::NoGradGuard no_grad;
  TokenLoss plain;
  const Shares shares = Shares::of(plain.counts(batch));
  const auto expected = plain.loss(*model, batch, shares).item<double>();
  for (const bool sharded : {false, true}) {
    ReplayDivergence objective(odd_ones(sharded), *start);
    EXPECT_NEAR(objective.loss(*model, batch, shares).item<double>(), expected, 1e-6);
    for (int64_t& index : batch.source_indices) {
      index = 0;
    }
    EXPECT_NEAR(objective.loss(*model, batch, shares).item<double>(), expected, 1e-6);
  }
}

/// Loss and gradients of what is trained.
std::vector<at::Tensor> outcome(ReplayDivergence& objective, model::Decoder& model) {
  const data::Batch batch = some_text();
  const at::Tensor loss = objective.loss(model, batch, Shares::of(objective.counts(batch)));
  torch::autograd::backward({loss}, {});
  std::vector<at::Tensor> all = {loss.detach().clone()};
  for (const auto& parameter : model.parameters()) {
    if (parameter->value.requires_grad()) {
      all.push_back(parameter->accumulator().clone());
    }
  }
  test::forget_gradients(model);
  return all;
}

void expect_one_model_is_as_good_as_two(model::Decoder& model, tuning::Adapter& adapter) {
  const auto start = start_model();
  for (const bool sharded : {false, true}) {
    ReplayDivergence two(odd_ones(sharded), *start);
    ReplayDivergence one(odd_ones(sharded), adapter);
    const auto expected = outcome(two, model);
    const auto have = outcome(one, model);
    ASSERT_EQ(have.size(), expected.size());
    ASSERT_GT(have.size(), 1U);
    double moved = 0;
    for (size_t i = 0; i < have.size(); ++i) {
      EXPECT_TRUE(at::equal(have[i], expected[i])) << i;
      moved += i == 0 ? 0 : have[i].abs().sum().item<double>();
    }
    EXPECT_GT(moved, 0);
    EXPECT_GT(one.take_metrics().back().sum, 1e-3);
    EXPECT_FALSE(adapter.dropout_keys().adapter_off);
  }
}

TEST(ReplayDivergence, WithTheAdapterOffEqualsASecondModel) {
  KAMERTON_NEED_ORACLE("fixtures/training/lora_final");
  test::Adapted adapted;
  expect_one_model_is_as_good_as_two(*adapted.decoder, *adapted.lora);
}

TEST(ReplayDivergence, WithRowsOfATiedHeadTrainedEqualsASecondModel) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  const auto model = test::make_decoder();
  ASSERT_TRUE(model->config().tied_head);
  tuning::TuningConfig config;
  config.method = "trainable_tokens";
  config.settings = {"token_indices=[5, 9, 260, 300, 400]"};
  tuning::Adapter adapter = tuning::Adapter::attach(*model, tuning::AdapterSpec::from(config));
  ASSERT_TRUE(adapter.can_switch_off());
  model->load_whole();
  const at::NoGradGuard no_grad;
  for (const tuning::AdapterEntry& entry : adapter.entries()) {
    entry.parameter->value.detach().fill_(0.3);
  }
  const at::AutoGradMode mode(true);
  expect_one_model_is_as_good_as_two(*model, adapter);
}

}  // namespace
}  // namespace kamerton::objective
