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

}  // namespace
}  // namespace kamerton::objective
