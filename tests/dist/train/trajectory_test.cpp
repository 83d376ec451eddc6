// SPDX-License-Identifier: Apache-2.0
// Twenty AdamW steps of a real model against transformers and PEFT, at every ZeRO stage on 1, 2 and
// 4 ranks.
#include <gmock/gmock.h>

#include "kamerton/comm/group.h"
#include "kamerton/model/weights.h"
#include "kamerton/objective/objective.h"
#include "kamerton/optim/schedule.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/tuning/peft_format.h"

#include "support/mpi_world.h"
#include "support/oracle.h"
#include "support/padded_batch.h"

namespace kamerton::train {
namespace {

using test::oracle_path;

constexpr int64_t kSteps = 20;

optim::OptimConfig oracle_config(int64_t stage) {
  optim::OptimConfig config;
  config.lr = 1e-3;
  config.beta2 = 0.95;
  config.weight_decay = 0.1;
  config.warmup_steps = 5;
  config.zero_stage = stage;
  return config;
}

struct Trajectory {
  std::vector<double> losses;
  std::vector<double> norms;
};

/// micro-batches of a step, for this rank
using Step = std::vector<data::Batch>;

/// Rows [b] of a batch that rank r of n takes.
data::Batch share(
    const at::Tensor& ids, const at::Tensor& mask, const at::Tensor& labels, int rank, int size) {
  const int64_t begin = ids.size(0) * rank / size, end = ids.size(0) * (rank + 1) / size;
  return test::flat_batch(
      ids.slice(0, begin, end), mask.slice(0, begin, end), labels.slice(0, begin, end));
}

Step plain_step(const storage::SafetensorsFile& file, int64_t step, const comm::Group& world) {
  const at::Tensor ids = test::oracle_tensor(file, "plain.input_ids")[step];
  return {share(ids, at::ones_like(ids), ids, world.rank(), world.size())};
}

Step accumulation_step(const storage::SafetensorsFile& file,
                       int64_t step,
                       const comm::Group& world) {
  const at::Tensor ids = test::oracle_tensor(file, "accumulation.input_ids")[step];
  const at::Tensor mask = test::oracle_tensor(file, "accumulation.attention_mask")[step];
  const at::Tensor labels = test::oracle_tensor(file, "accumulation.labels")[step];
  Step micro_batches;
  for (int64_t i = 0; i < ids.size(0); ++i) {
    micro_batches.push_back(share(ids[i], mask[i], labels[i], world.rank(), world.size()));
  }
  return micro_batches;
}

struct Subject {
  std::unique_ptr<model::Decoder> decoder;
  std::optional<tuning::Adapter> lora;
  std::unique_ptr<optim::ShardedParameters> parameters;
};

Subject make_subject(const std::string& run,
                     int64_t stage,
                     const comm::Group& world,
                     bool checkpointing = false) {
  model::ModelOptions options;
  options.path = oracle_path("models/stories260K").string();
  options.dtype = "fp32";
  options.activation_checkpointing = checkpointing ? "block" : "none";
  Subject subject;
  subject.decoder = std::make_unique<model::Decoder>(model::read_config(options.path), options);
  std::optional<tuning::PeftAdapter> start;
  if (run == "lora") {
    start = tuning::PeftAdapter::open(oracle_path("fixtures/training/lora_init"));
    subject.lora = tuning::Adapter::attach(*subject.decoder, start->spec());
  }
  subject.parameters =
      std::make_unique<optim::ShardedParameters>(subject.decoder->units(),
                                                 optim::ShardGroups{world, comm::Group()},
                                                 oracle_config(stage),
                                                 at::kFloat);
  subject.decoder->set_hooks(subject.parameters.get());
  const auto weights = model::open_weights(options, *subject.decoder);
  subject.parameters->load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    parameter.adapter ? start->read(parameter, offset, out) : weights->read(parameter, offset, out);
  });
  return subject;
}

Trajectory train(Subject& subject,
                 const std::string& run,
                 const comm::Group& world,
                 const optim::OptimConfig& config) {
  const auto batches =
      storage::SafetensorsFile::open(oracle_path("fixtures/training/batches.safetensors"));
  objective::TokenLoss objective;
  Trajectory trajectory;
  for (int64_t step = 0; step < kSteps; ++step) {
    const Step micro_batches = run == "accumulation" ? accumulation_step(batches, step, world)
                                                     : plain_step(batches, step, world);
    int64_t targets = 0;
    for (const data::Batch& batch : micro_batches) {
      targets += batch.target_count;
    }
    const auto shares = objective::Shares::of({.targets = world.sum(targets)});
    double loss = 0;
    for (size_t i = 0; i < micro_batches.size(); ++i) {
      subject.parameters->begin_micro_batch(i + 1 == micro_batches.size());
      const at::Tensor part = objective.loss(*subject.decoder, micro_batches[i], shares);
      part.backward();
      loss += part.item<double>();
    }
    trajectory.losses.push_back(world.sum(loss));
    const optim::GradientReport report = subject.parameters->finish_gradients(1.0);
    trajectory.norms.push_back(report.norm);
    subject.parameters->update(step + 1, optim::learning_rate(config, step, kSteps));
  }
  return trajectory;
}

class TrajectoryTest : public testing::TestWithParam<std::tuple<const char*, int64_t>> {};

TEST_P(TrajectoryTest, EqualsTheReferenceLibrary) {
  KAMERTON_NEED_ORACLE("fixtures/training/runs.json");
  const auto& [run, stage] = GetParam();
  const comm::Group& world = testing_support::mpi_world();
  if (std::string(run) == "accumulation" && world.size() > 2) {
    GTEST_SKIP() << "the fixture's micro-batches have two rows: 1 or 2 ranks";
  }
  const core::Json expected =
      test::oracle_json(oracle_path("fixtures/training/runs.json"))["runs"][run]["log"];
  Subject subject = make_subject(run, stage, world);

  const Trajectory got = train(subject, run, world, oracle_config(stage));

  for (size_t i = 0; i < kSteps; ++i) {
    EXPECT_NEAR(got.losses[i], expected[i]["loss"].get<double>(), 1e-4) << "step " << i;
    EXPECT_NEAR(got.norms[i] / expected[i]["grad_norm"].get<double>(), 1.0, 1e-3) << "step " << i;
  }
  if (std::string(run) == "lora") {
    const auto end = tuning::PeftAdapter::open(oracle_path("fixtures/training/lora_final"));
    for (const tuning::AdapterEntry& entry : subject.lora->entries()) {
      at::Tensor reference = at::empty({entry.parameter->numel()});
      end.read(*entry.parameter, 0, reference);
      EXPECT_LT(
          test::max_difference(subject.parameters->fetch(*entry.parameter).view({-1}), reference),
          1e-4)
          << entry.key;
    }
  } else {
    const auto file = storage::SafetensorsFile::open(
        oracle_path(std::string("fixtures/training/") + run + "_final.safetensors"));
    for (const tensor::ParameterPtr& parameter : subject.decoder->parameters()) {
      const at::Tensor reference = test::oracle_tensor(file, parameter->name);
      ASSERT_TRUE(reference.defined()) << parameter->name;
      EXPECT_LT(test::max_difference(subject.parameters->fetch(*parameter), reference), 1e-4)
          << parameter->name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Stages,
                         TrajectoryTest,
                         testing::Combine(testing::Values("full", "lora", "accumulation"),
                                          testing::Values<int64_t>(0, 1, 2, 3)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_zero" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(Trajectory, HasEqualBitsAtEveryStageOfOneWorldSizeAndWithRecomputation) {
  KAMERTON_NEED_ORACLE("fixtures/training/runs.json");
  const comm::Group& world = testing_support::mpi_world();
  Subject first = make_subject("full", 0, world);
  const Trajectory reference = train(first, "full", world, oracle_config(0));

  for (int64_t stage = 1; stage <= 3; ++stage) {
    Subject other = make_subject("full", stage, world, stage == 3);
    const Trajectory got = train(other, "full", world, oracle_config(stage));
    EXPECT_EQ(got.losses, reference.losses) << "stage " << stage;
    EXPECT_EQ(got.norms, reference.norms) << "stage " << stage;
  }
}

}  // namespace
}  // namespace kamerton::train
