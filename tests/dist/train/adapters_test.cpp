// SPDX-License-Identifier: Apache-2.0
// Every way to tune a part: the same trajectory on one rank without sharding and on all ranks at
// stages 0 and 3, and a complete adapter out of stage 3.
#include <filesystem>
#include <regex>

#include <gtest/gtest.h>
#include <unistd.h>

#include "kamerton/comm/group.h"
#include "kamerton/model/weights.h"
#include "kamerton/objective/objective.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/tuning/packed_base.h"
#include "kamerton/tuning/peft_format.h"

#include "support/mpi_world.h"
#include "support/oracle.h"

namespace kamerton::train {
namespace {

constexpr int64_t kSteps = 3;
constexpr int64_t kDocuments = 4;

/// Documents [first, last) of a step's micro-batch.
data::Batch documents(int64_t step, int64_t first, int64_t last) {
  data::Batch batch;
  batch.document_offsets.push_back(0);
  for (int64_t document = first; document < last; ++document) {
    for (int64_t i = 0; i < 5 + document; ++i) {
      batch.tokens.push_back((17 * step + 29 * document + 7 * i) % 300);
      batch.positions.push_back(i);
      batch.targets.push_back((11 * step + 5 * document + 3 * i) % 300);
    }
    batch.target_count += 5 + document;
    batch.document_offsets.push_back(static_cast<int64_t>(batch.tokens.size()));
    batch.sample_ids.push_back(document);
  }
  return batch;
}

struct Way {
  const char* method;
  std::vector<std::string> settings = {};
  std::vector<std::string> save = {};
  const char* quantize = "none";
};

tuning::AdapterSpec spec_of(const Way& way) {
  tuning::TuningConfig config;
  config.method = way.method;
  config.settings = way.settings;
  config.modules_to_save = way.save;
  config.last_layers = 1;
  return tuning::AdapterSpec::from(config);
}

/// A decoder with its adapter, placed and filled.
struct Subject {
  model::ModelOptions options;
  std::unique_ptr<model::Decoder> decoder;
  std::optional<tuning::Adapter> adapter;
  std::unique_ptr<optim::ShardedParameters> parameters;
  std::unique_ptr<model::WeightSource> weights;

  Subject(const Way& way, const comm::Group& group, int64_t stage, bool checkpointing) {
    options.path = test::oracle_path("models/tiny-qwen2").string();
    options.dtype = "fp32";
    options.activation_checkpointing = checkpointing ? "block" : "none";
    const tuning::AdapterSpec spec = spec_of(way);
    decoder = std::make_unique<model::Decoder>(
        tuning::prepare_config(model::read_config(options.path), spec), options);
    adapter = tuning::Adapter::attach(*decoder, spec);
    tuning::choose_packed(*decoder, way.quantize);
    optim::OptimConfig config;
    config.zero_stage = stage;
    parameters = std::make_unique<optim::ShardedParameters>(
        decoder->units(), optim::ShardGroups{group, comm::Group()}, config, at::kFloat);
    decoder->set_hooks(parameters.get());
    weights = model::open_weights(options, *decoder);
    parameters->load([this](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
      fill(parameter, offset, out);
    });
  }

  tuning::ReadBase base() const {
    return [this](const tensor::Parameter& parameter) {
      at::Tensor whole = at::empty(parameter.shape, at::kFloat);
      weights->read(parameter, 0, whole.view({-1}));
      return whole;
    };
  }
  void fill(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const {
    if (parameter.packed) {
      out.copy_(tuning::pack(*decoder, parameter, base()).narrow(0, offset, out.numel()));
    } else if (parameter.adapter) {
      adapter->initialise(parameter, 3, offset, out, base());
    } else if (adapter->changes_base(parameter)) {
      const at::Tensor whole = adapter->starting_base(parameter, 3, base());
      out.copy_(whole.view({-1}).narrow(0, offset, out.numel()));
    } else {
      weights->read(parameter, offset, out);
    }
  }
};

struct Trained {
  std::vector<double> losses;
  std::vector<double> norms;
  std::vector<at::Tensor> values;
};

Trained train(Subject& subject, const comm::Group& group) {
  objective::TokenLoss objective;
  Trained run;
  for (int64_t step = 0; step < kSteps; ++step) {
    const data::Batch batch = documents(step,
                                        kDocuments * group.rank() / group.size(),
                                        kDocuments * (group.rank() + 1) / group.size());
    const auto shares = objective::Shares::of({.targets = group.sum(batch.target_count)});
    subject.parameters->begin_micro_batch(true);
    const at::Tensor loss = objective.loss(*subject.decoder, batch, shares);
    loss.backward();
    run.losses.push_back(group.sum(loss.item<double>()));
    run.norms.push_back(subject.parameters->finish_gradients(1.0).norm);
    subject.parameters->update(step + 1, 1e-2);
  }
  for (const tuning::AdapterEntry& entry : subject.adapter->entries()) {
    run.values.push_back(subject.parameters->fetch(*entry.parameter).clone());
  }
  return run;
}

void expect_near(const Trained& got, const Trained& want, const std::string& what) {
  for (size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], want.losses[i], 1e-4) << what << ", step " << i;
    EXPECT_NEAR(got.norms[i] / want.norms[i], 1.0, 2e-3) << what << ", step " << i;
  }
  ASSERT_EQ(got.values.size(), want.values.size());
  EXPECT_LT(want.losses.back(), want.losses.front() + 1.0) << what;
}

/// Bytes of this rank's optimizer state: two moments of the trained parameters, cut over the ranks.
void expect_state_of_the_adapter_alone(const Subject& subject, const comm::Group& group) {
  int64_t trained = 0;
  for (const tensor::ParameterPtr& parameter : subject.decoder->parameters()) {
    trained += parameter->trainable ? parameter->numel() : 0;
  }
  const int64_t exact = 8 * trained / group.size();
  const int64_t padding =
      8 * (64 + 16 * 32) * static_cast<int64_t>(subject.decoder->units().size());
  EXPECT_GE(subject.parameters->bytes().optimizer_state, exact);
  EXPECT_LE(subject.parameters->bytes().optimizer_state, exact + padding);
}

class Adapters : public testing::TestWithParam<Way> {};

TEST_P(Adapters, AnyNumberOfRanksTrainsAsOneAndWritesACompleteAdapter) {
  KAMERTON_NEED_ORACLE("models/tiny-qwen2");
  const comm::Group& world = testing_support::mpi_world();
  Subject one(GetParam(), comm::Group(), 0, false);
  const Trained alone = train(one, comm::Group());
  Subject plain(GetParam(), world, 0, false);
  expect_near(train(plain, world), alone, "stage 0");
  Subject cut(GetParam(), world, 3, true);
  const Trained sharded = train(cut, world);
  expect_near(sharded, alone, "stage 3, recomputed");
  expect_state_of_the_adapter_alone(cut, world);

  const auto folder = std::filesystem::temp_directory_path() /
                      ("kamerton-adapters-" + world.broadcast(std::to_string(getpid()), 0));
  tuning::write_peft(
      folder,
      *cut.adapter,
      "tiny-qwen2",
      [&](const tensor::Parameter& parameter) { return cut.parameters->fetch(parameter); },
      world.rank() == 0,
      {3, cut.base()});
  world.barrier();
  if (world.rank() == 0) {
    tuning::PeftAdapter written = tuning::PeftAdapter::open(folder);
    model::Decoder decoder(
        tuning::prepare_config(model::read_config(cut.options.path), written.spec()), cut.options);
    const tuning::Adapter adapter = tuning::Adapter::attach(decoder, written.spec());
    written.bind(adapter);
    for (size_t i = 0; i < adapter.entries().size(); ++i) {
      const tuning::AdapterEntry& entry = adapter.entries()[i];
      at::Tensor values = at::empty({entry.parameter->numel()}, at::kFloat);
      written.read(*entry.parameter, 0, values);
      if (values.numel() == sharded.values[i].numel()) {  // PiSSA: of twice the rank
        EXPECT_TRUE(values.equal(sharded.values[i].view({-1}))) << entry.key;
      }
    }
    std::filesystem::remove_all(folder);
  }
  world.barrier();
}

INSTANTIATE_TEST_SUITE_P(Methods,
                         Adapters,
                         testing::Values(Way{"lora"},
                                         Way{"lora", {}, {"lm_head", "input_layernorm"}},
                                         Way{"lora", {"use_dora=true"}},
                                         Way{"lora", {"init_lora_weights=pissa", "r=4"}},
                                         Way{"lora", {"freeze_a=true"}},
                                         Way{"lora", {}, {}, "nf4"},
                                         Way{"lora", {"use_dora=true"}, {}, "int8"},
                                         Way{"ia3"},
                                         Way{"vera", {"r=16"}},
                                         Way{"adalora"},
                                         Way{"loha"},
                                         Way{"lokr"},
                                         Way{"oft", {"oft_block_size=8"}},
                                         Way{"boft"},
                                         Way{"hra"},
                                         Way{"miss", {"r=8"}},
                                         Way{"miss", {"r=8", "init_weights=bat"}},
                                         Way{"fourierft"},
                                         Way{"randlora"},
                                         Way{"shira", {"r=4", "random_seed=3"}},
                                         Way{"ln_tuning"},
                                         Way{"trainable_tokens", {"token_indices=[5, 29, 58]"}},
                                         Way{"prompt_tuning", {"num_virtual_tokens=4"}},
                                         Way{"p_tuning", {"num_virtual_tokens=4"}},
                                         Way{"prefix_tuning", {"num_virtual_tokens=4"}},
                                         Way{"houlsby"},
                                         Way{"pfeiffer"},
                                         Way{"parallel"},
                                         Way{"partial"},
                                         Way{"bitfit"}),
                         [](const auto& info) {
                           std::string name = std::to_string(info.index) + "_" + info.param.method;
                           for (const std::string& setting : info.param.settings) {
                             name += "_" + setting;
                           }
                           name += info.param.save.empty() ? "" : "_saved";
                           return std::regex_replace(
                               name + "_" + info.param.quantize, std::regex("[^A-Za-z0-9]+"), "_");
                         });

}  // namespace
}  // namespace kamerton::train
