// SPDX-License-Identifier: Apache-2.0
// Every family with everything cut over all ranks (ZeRO 3) against one rank that holds it whole.
#include <gmock/gmock.h>

#include "kamerton/comm/group.h"
#include "kamerton/model/weights.h"
#include "kamerton/optim/schedule.h"
#include "kamerton/optim/sharded_parameters.h"

#include "support/mpi_world.h"
#include "support/oracle.h"

namespace kamerton::train {
namespace {

using Documents = std::vector<std::vector<int64_t>>;

constexpr int64_t kSteps = 3;
constexpr size_t kDocuments = 8;

Documents documents_of(int64_t step) {
  Documents documents;
  int64_t token = 7 + step;
  for (size_t d = 0; d < kDocuments; ++d) {
    auto& document = documents.emplace_back();
    for (size_t i = 0; i < 9 + 2 * d; ++i) {
      token = (token * 31 + 11) % 307;
      document.push_back(token);
    }
  }
  return documents;
}

at::Tensor next_tokens(const Documents& documents) {
  std::vector<int64_t> targets;
  for (const auto& document : documents) {
    targets.insert(targets.end(), document.begin() + 1, document.end());
    targets.push_back(tensor::kIgnoredTarget);
  }
  return at::tensor(targets, at::kLong);
}

struct Trained {
  std::vector<double> losses;
  std::vector<double> norms;
  std::vector<at::Tensor> weights;
};

optim::OptimConfig config_of(int64_t stage) {
  optim::OptimConfig config;
  // AdamW's first steps are of the size of the learning rate whatever the gradient's: where it is
  // all rounding (a key's bias changes no attention) they would go either way.
  config.algorithm = "sgd";
  config.lr = 1e-3;
  config.zero_stage = stage;
  return config;
}

Trained train(const std::string& name, int64_t stage, const comm::Group& group) {
  model::ModelOptions options;
  options.path = test::oracle_path("models/" + name).string();
  options.dtype = "fp32";
  options.device = "cpu";
  model::Decoder decoder(model::read_config(options.path), options);
  optim::ShardedParameters parameters(
      decoder.units(), optim::ShardGroups{group, comm::Group()}, config_of(stage), at::kFloat);
  decoder.set_hooks(&parameters);
  const auto weights = model::open_weights(options, decoder);
  parameters.load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    weights->read(parameter, offset, out);
  });
  Trained run;
  for (int64_t step = 0; step < kSteps; ++step) {
    const Documents all = documents_of(step);
    const size_t begin = kDocuments * static_cast<size_t>(group.rank()) / size_t(group.size());
    const size_t end = kDocuments * (static_cast<size_t>(group.rank()) + 1) / size_t(group.size());
    const Documents own(all.begin() + static_cast<long>(begin),
                        all.begin() + static_cast<long>(end));
    const at::Tensor targets = next_tokens(own);
    tensor::TokenLossOptions loss_options;
    loss_options.scale =
        1.0 /
        static_cast<double>(group.sum(targets.ne(tensor::kIgnoredTarget).sum().item<int64_t>()));
    parameters.begin_micro_batch(true);
    const tensor::TokenLoss loss =
        decoder.loss(decoder.forward(model::Rows::from_documents(own)), targets, loss_options);
    loss.loss.backward();
    run.losses.push_back(group.sum(loss.loss.item<double>()));
    run.norms.push_back(parameters.finish_gradients(1.0).norm);
    parameters.update(step + 1, 1e-3);
  }
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    run.weights.push_back(parameters.fetch(*parameter).clone());
  }
  return run;
}

class FamilyOverRanks : public testing::TestWithParam<const char*> {};

TEST_P(FamilyOverRanks, ShardedTrainingEqualsOneRank) {
  KAMERTON_NEED_ORACLE(std::string("models/") + GetParam());
  const Trained whole = train(GetParam(), 0, comm::Group());
  const Trained sharded = train(GetParam(), 3, testing_support::mpi_world());

  for (size_t i = 0; i < size_t{kSteps}; ++i) {
    EXPECT_NEAR(sharded.losses[i], whole.losses[i], 2e-5) << "step " << i;
    EXPECT_NEAR(sharded.norms[i] / whole.norms[i], 1.0, 1e-4) << "step " << i;
  }
  ASSERT_EQ(sharded.weights.size(), whole.weights.size());
  for (size_t i = 0; i < whole.weights.size(); ++i) {
    EXPECT_LT((sharded.weights[i] - whole.weights[i]).abs().max().item<double>(), 1e-5) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Families,
                         FamilyOverRanks,
                         testing::Values("tiny-llama",
                                         "tiny-mistral",
                                         "tiny-qwen2",
                                         "tiny-qwen3",
                                         "tiny-gemma2",
                                         "tiny-gemma3",
                                         "tiny-phi3",
                                         "tiny-phi3-longrope",
                                         "tiny-gpt2",
                                         "tiny-gpt_neox"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace kamerton::train
