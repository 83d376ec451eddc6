// SPDX-License-Identifier: Apache-2.0
// Mixture of experts cut over ranks: an expert that no token of a rank chose takes part in gathers
// and reductions all the same.
#include <gtest/gtest.h>

#include "kamerton/comm/group.h"
#include "kamerton/model/weights.h"
#include "kamerton/objective/objective.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/tuning/adapter.h"

#include "support/mpi_world.h"
#include "support/oracle.h"

namespace kamerton::train {
namespace {

constexpr int64_t kSteps = 4;
constexpr int64_t kDocuments = 4;

/// One document a row of the micro-batch; short ones, so that most experts get no token of a rank.
data::Batch documents(int64_t step, int64_t first, int64_t last) {
  data::Batch batch;
  batch.document_offsets.push_back(0);
  for (int64_t document = first; document < last; ++document) {
    for (int64_t i = 0; i < 3 + document; ++i) {
      batch.tokens.push_back((17 * step + 29 * document + 7 * i) % 300);
      batch.positions.push_back(i);
      batch.targets.push_back((11 * step + 5 * document + 3 * i) % 300);
    }
    batch.target_count += 3 + document;
    batch.document_offsets.push_back(static_cast<int64_t>(batch.tokens.size()));
    batch.sample_ids.push_back(document);
  }
  return batch;
}

struct Trained {
  std::vector<double> losses;
  std::vector<double> norms;
  std::vector<at::Tensor> trained;
};

struct Setting {
  int64_t stage = 0;
  std::string checkpointing = "none";
  bool lora = false;
  double aux = 0.0;
};

Trained train(const std::string& name, const comm::Group& group, const Setting& setting) {
  model::ModelOptions options;
  options.path = test::oracle_path("models/" + name).string();
  options.dtype = "fp32";
  options.activation_checkpointing = setting.checkpointing;
  options.router_aux_loss_coef = setting.aux;
  model::Decoder decoder(model::read_config(options.path), options);
  std::optional<tuning::Adapter> lora;
  if (setting.lora) {
    tuning::TuningConfig chosen;
    chosen.lora.dropout = 0.1;
    lora = tuning::Adapter::attach(decoder, tuning::AdapterSpec::from(chosen));
  }
  optim::OptimConfig config;
  config.zero_stage = setting.stage;
  optim::ShardedParameters parameters(
      decoder.units(), optim::ShardGroups{group, comm::Group()}, config, at::kFloat);
  decoder.set_hooks(&parameters);
  const auto weights = model::open_weights(options, decoder);
  parameters.load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    parameter.adapter ? lora->initialise(parameter, 3, offset, out)
                      : weights->read(parameter, offset, out);
  });
  objective::TokenLoss objective;
  Trained run;
  for (int64_t step = 0; step < kSteps; ++step) {
    const data::Batch batch = documents(step,
                                        kDocuments * group.rank() / group.size(),
                                        kDocuments * (group.rank() + 1) / group.size());
    if (lora.has_value()) {
      at::Tensor keys = at::empty({static_cast<int64_t>(batch.tokens.size())}, at::kLong);
      for (int64_t n = 0; n < keys.numel(); ++n) {
        keys[n] =
            batch.tokens[static_cast<size_t>(n)] * 100 + batch.positions[static_cast<size_t>(n)];
      }
      lora->dropout_keys().keys_N = keys;
    }
    const auto shares = objective::Shares::of({.targets = group.sum(batch.target_count)});
    parameters.begin_micro_batch(true);
    const at::Tensor loss = objective.loss(decoder, batch, shares);
    loss.backward();
    run.losses.push_back(group.sum(loss.item<double>()));
    run.norms.push_back(parameters.finish_gradients(1.0).norm);
    parameters.update(step + 1, 1e-3);
  }
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    if (parameter->trainable) {
      run.trained.push_back(parameters.fetch(*parameter));
    }
  }
  return run;
}

void expect_near(const Trained& got, const Trained& want, const std::string& what) {
  for (size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], want.losses[i], 2e-5) << what << ", step " << i;
    EXPECT_NEAR(got.norms[i] / want.norms[i], 1.0, 1e-3) << what << ", step " << i;
  }
  ASSERT_EQ(got.trained.size(), want.trained.size());
  for (size_t i = 0; i < want.trained.size(); ++i) {
    EXPECT_LT(test::max_difference(got.trained[i], want.trained[i]), 1e-4) << what << ", " << i;
  }
}

TEST(Experts, AnyNumberOfRanksTrainsAsOne) {
  const comm::Group& world = testing_support::mpi_world();
  for (const char* name : {"tiny-mixtral", "tiny-qwen3_moe"}) {
    KAMERTON_NEED_ORACLE(std::string("models/") + name);
    const Trained alone = train(name, comm::Group(), {});
    for (const int64_t stage : {0, 1, 2, 3}) {
      expect_near(train(name, world, {.stage = stage}), alone, name + std::to_string(stage));
    }
    expect_near(train(name, world, {.stage = 3, .checkpointing = "block"}), alone, name);
  }
}

TEST(Experts, AdaptersOnExpertsTrainAsOnOneRank) {
  const comm::Group& world = testing_support::mpi_world();
  KAMERTON_NEED_ORACLE("models/tiny-mixtral");
  const Trained alone = train("tiny-mixtral", comm::Group(), {.lora = true});
  expect_near(train("tiny-mixtral", world, {.stage = 3, .lora = true}), alone, "lora");
  EXPECT_LT(alone.losses.back(), alone.losses.front() + 0.5);
}

TEST(Experts, RecomputationWithTheBalancingLossHasEqualBits) {
  const comm::Group& world = testing_support::mpi_world();
  KAMERTON_NEED_ORACLE("models/tiny-qwen3_moe");
  const Trained whole = train("tiny-qwen3_moe", world, {.stage = 3, .aux = 0.1});
  const Trained again =
      train("tiny-qwen3_moe", world, {.stage = 3, .checkpointing = "block", .aux = 0.1});
  const Trained without = train("tiny-qwen3_moe", world, {.stage = 3});
  EXPECT_EQ(whole.losses, again.losses);
  EXPECT_EQ(whole.norms, again.norms);
  EXPECT_GT(whole.losses[0], without.losses[0] + 0.05) << "the loss is at least 2 x 0.1";
}

}  // namespace
}  // namespace kamerton::train
