// SPDX-License-Identifier: Apache-2.0
#include "run_objective.h"

#include <thread>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"
#include "kamerton/objective/distill.h"
#include "kamerton/objective/judged.h"
#include "kamerton/objective/policy.h"
#include "kamerton/objective/preference.h"
#include "kamerton/objective/replay_divergence.h"
#include "kamerton/objective/score.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/text/bundle.h"

#include "whole_weights.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;

std::string describe_method(const objective::ObjectiveConfig& config) {
  std::string name = config.method;
  for (char& c : name) {
    c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return config.loss.empty() ? name : fmt::format("{} ({})", name, fmt::join(config.loss, " + "));
}

/// Of the files of a model or adapter that decide its output.
void add_folder(const fs::path& folder, storage::Hasher& hasher) {
  const int threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 8U));
  for (const std::string& name : storage::posix_filesystem().list(folder)) {
    const bool weights = name.ends_with(".safetensors") || name.ends_with(".bin");
    if (weights || name == "config.json" || name == "adapter_config.json") {
      hasher.update(name);
      hasher.update(storage::to_hex(storage::tree_digest_of_file(folder / name, threads)));
    }
  }
}

/// Digest of a model's files and its adapter's ("": none), the same on every rank. Collective.
std::string digest_of_model(const std::string& model,
                            const std::string& adapter,
                            const comm::Group& world) {
  std::string digest;
  if (world.rank() == 0) {
    storage::Hasher hasher;
    add_folder(model, hasher);
    if (!adapter.empty()) {
      add_folder(adapter, hasher);
    }
    digest = storage::tagged(hasher.finish());
  }
  return world.broadcast(digest, 0);
}

std::string digest_of_reference(const RunConfig& config, const comm::Group& world) {
  const bool other = config.objective.reference.has_value();
  const std::string random =
      config.model.random_init ? fmt::format(" random {}", config.model.init_seed) : "";
  return digest_of_model(config.objective.reference.value_or(config.model.path),
                         other ? "" : config.tuning.adapter.value_or(""),
                         world) +
         random;
}

/// Token ids mean the same to both models.
void require_same_tokenizer(const std::string& folder, const ObjectiveInputs& inputs) {
  constexpr const char* kProbe = "The 3 quick\n  foxes; caf\xc3\xa9, {\"a\": [1, 2]}\t\xe2\x82\xac";
  const text::TokenizerBundle& own = inputs.train.bundle();
  const text::TokenizerBundle other = text::load_bundle(folder);
  if (own.tokenizer.vocab_size() != other.tokenizer.vocab_size() ||
      own.tokenizer.encode(kProbe, true) != other.tokenizer.encode(kProbe, true)) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "objective.distill",
         .what = "teacher and student have different tokenizers: their distributions "
                 "are over different tokens",
         .got = fmt::format("{} with {} tokens", folder, other.tokenizer.vocab_size()),
         .allowed = fmt::format("the student's, with {} tokens", own.tokenizer.vocab_size())});
  }
}

/// A reference has a row for every token of the run's data.
void require_reads_tokens(const std::string& folder, const ObjectiveInputs& inputs) {
  const auto tokens = static_cast<int64_t>(inputs.train.bundle().tokenizer.vocab_size());
  const int64_t rows = model::read_config(folder).vocab_size;
  if (rows < tokens) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "objective.reference",
                       .what = "the reference model has another vocabulary than the trained one",
                       .got = fmt::format("{} with {} tokens", folder, rows),
                       .allowed = fmt::format("{} tokens, the same tokenizer", tokens)});
  }
}

objective::ReferenceKey key_of(const RunConfig& config,
                               const ObjectiveInputs& inputs,
                               const data::Dataset& set,
                               const std::string& model) {
  return {.data_digest = set.digest(),
          .model_digest = model,
          .answers = objective::compares_answers(config.objective) ? "pair" : "judged",
          .tail_weight = config.objective.ld_alpha.value_or(1.0),
          .dtype = inputs.tuned.decoder->dtype() == at::kBFloat16 ? "bf16" : "fp32"};
}

}  // namespace

RunObjective::RunObjective(const RunConfig& config, const ObjectiveInputs& inputs)
    : text_(describe_method(config.objective)) {
  if (objective::needs_reference(config.objective)) {
    find_reference(config, inputs);
  }
  build(config, inputs);
}

void RunObjective::find_reference(const RunConfig& config, const ObjectiveInputs& inputs) {
  if (config.objective.precompute_reference && find_stored(config, inputs)) {
    text_ += " beside stored log-probabilities";
    return;
  }
  load_reference(config, inputs);
  if (config.objective.precompute_reference) {
    store_reference(config, inputs);
    reference_.reset();
    other_.reset();
  }
}

/// Whether the numbers of all data are there, as every rank sees it.
bool RunObjective::find_stored(const RunConfig& config, const ObjectiveInputs& inputs) {
  const std::string model = digest_of_reference(config, inputs.world);
  stored_ = std::make_unique<objective::StoredReferences>();
  const auto find = [&](const data::Dataset& set) {
    return objective::ReferenceStore::open(
        config.data.store_dir, key_of(config, inputs, set, model), set.size());
  };
  stored_->train = find(inputs.train);
  bool there = stored_->train.has_value();
  if (inputs.held_out != nullptr) {
    stored_->held_out = find(*inputs.held_out);
    there = there && stored_->held_out.has_value();
  }
  return !inputs.world.any(!there);
}

void RunObjective::store_reference(const RunConfig& config, const ObjectiveInputs& inputs) {
  const std::string model = digest_of_reference(config, inputs.world);
  const auto make = [&](const data::Dataset& set) {
    return objective::ReferenceStore::make(config.data.store_dir,
                                           key_of(config, inputs, set, model),
                                           set,
                                           *reference_,
                                           config.data.micro_batch_rows,
                                           inputs.world);
  };
  stored_->train = make(inputs.train);
  if (inputs.held_out != nullptr) {
    stored_->held_out = make(*inputs.held_out);
  }
  text_ += ", computed ahead";
}

void RunObjective::load_reference(const RunConfig& config, const ObjectiveInputs& inputs) {
  if (!has_own_reference(config, inputs.tuned)) {
    reference_ =
        std::make_unique<objective::AdapterOff>(*inputs.tuned.decoder, *inputs.tuned.adapter);
    text_ += " beside the base model (adapter off)";
    return;
  }
  const std::string path = config.objective.reference.value_or(config.model.path);
  if (config.objective.reference.has_value()) {
    require_reads_tokens(path, inputs);
  }
  other_ = std::make_unique<FrozenModel>(
      config, path, !config.objective.reference.has_value(), inputs.groups);
  reference_ = std::make_unique<objective::OtherModel>(other_->decoder());
  text_ +=
      fmt::format(" beside {}", config.objective.reference.value_or("a copy of the start model"));
}

void RunObjective::build(const RunConfig& config, const ObjectiveInputs& inputs) {
  const objective::ObjectiveConfig& chosen = config.objective;
  switch (objective::answers_of(chosen)) {
    case data::Answers::Pair:
      if (objective::scores(chosen)) {
        objective_ = std::make_unique<objective::RewardLearning>(chosen);
      } else {
        objective_ =
            std::make_unique<objective::Preference>(chosen, reference_.get(), stored_.get());
      }
      return;
    case data::Answers::Steps:
      objective_ = std::make_unique<objective::StepRewardLearning>();
      return;
    case data::Answers::Judged:
      objective_ =
          std::make_unique<objective::Kto>(chosen, reference_.get(), stored_.get(), inputs.world);
      return;
    case data::Answers::Asked:
      build_policy(config, inputs);
      return;
    case data::Answers::One:
      if (chosen.method == "distill") {
        build_distillation(config, inputs);
      } else if (config.keep.replay.kl > 0) {
        build_replay(config, inputs);
      } else {
        objective_ = std::make_unique<objective::TokenLoss>();
      }
  }
}

void RunObjective::build_distillation(const RunConfig& config, const ObjectiveInputs& inputs) {
  const objective::DistillConfig& distill = config.objective.distill;
  require_same_tokenizer(distill.teacher, inputs);
  if (distill.precompute && (data::packing_splits(config.data) || config.data.text_windows)) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "objective.distill",
         .what = "objective.distill.precompute stores numbers of whole examples, and "
                 "data.packing_strategy or data.text_windows cuts them",
         .got = config.data.text_windows ? "data.text_windows" : config.data.packing_strategy,
         .allowed = "next_fit or bfd"});
  }
  text_ += " from " + distill.teacher;
  if (distill.precompute) {
    teachers_ = std::make_unique<objective::StoredTeachers>();
    find_teacher_numbers(config, inputs);
  } else {
    other_ = std::make_unique<FrozenModel>(config, distill.teacher, false, inputs.groups);
    model::require_tokens(other_->decoder().config(), "objective.distill");
  }
  objective_ = std::make_unique<objective::Distillation>(
      config.objective, other_ ? &other_->decoder() : nullptr, teachers_.get());
}

/// The start model is asked for what is replayed: the base model when a new adapter is switched
/// off, else a copy.
void RunObjective::build_replay(const RunConfig& config, const ObjectiveInputs& inputs) {
  const objective::ReplayDivergence::Options options = {
      .weight = config.keep.replay.kl,
      .sharded = inputs.parameters.stage() == 3,
      .is_replayed = [&set = inputs.train, last = inputs.train.summary().sources.size() - 1](
                         int64_t index) { return set.source_of(index) == last; }};
  if (!has_own_reference(config, inputs.tuned)) {
    objective_ = std::make_unique<objective::ReplayDivergence>(options, *inputs.tuned.adapter);
    text_ += " and KL to the base model (adapter off) on replayed data";
    return;
  }
  other_ = std::make_unique<FrozenModel>(config, config.model.path, true, inputs.groups);
  objective_ = std::make_unique<objective::ReplayDivergence>(options, other_->decoder());
  text_ += " and KL to a copy of the start model on replayed data";
}

void RunObjective::find_teacher_numbers(const RunConfig& config, const ObjectiveInputs& inputs) {
  const objective::DistillConfig& distill = config.objective.distill;
  const std::string model = digest_of_model(distill.teacher, "", inputs.world);
  const auto get = [&](const data::Dataset& set) {
    const objective::TeacherKey key{.data_digest = set.digest(),
                                    .model_digest = model,
                                    .top_k = distill.top_k,
                                    .temperature = distill.temperature,
                                    .dtype = config.model.dtype};
    auto store = objective::TeacherStore::open(config.data.store_dir, key, set.size());
    if (inputs.world.any(!store)) {
      if (!other_) {
        other_ = std::make_unique<FrozenModel>(config, distill.teacher, false, inputs.groups);
      }
      store = objective::TeacherStore::make(config.data.store_dir,
                                            key,
                                            set,
                                            other_->decoder(),
                                            config.data.micro_batch_rows,
                                            inputs.world);
    }
    return store;
  };
  teachers_->train = get(inputs.train);
  if (inputs.held_out != nullptr) {
    teachers_->held_out = get(*inputs.held_out);
  }
  other_.reset();
  text_ += ", computed ahead";
}

std::unique_ptr<objective::Judge> RunObjective::make_judge(const RunConfig& config,
                                                           const objective::RewardConfig& reward,
                                                           const ObjectiveInputs& inputs) {
  if (reward.kind == "program") {
    return objective::make_program_judge(reward, inputs.world);
  }
  if (reward.kind != "model") {
    return objective::make_rule(reward);
  }
  const model::DecoderConfig judge = model::read_config(reward.model);
  const model::DecoderConfig& policy = inputs.tuned.decoder->config();
  if (judge.vocab_size != policy.vocab_size) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "objective.rewards",
                       .what = "the reward model has another vocabulary than the model it judges",
                       .got = fmt::format("{} tokens", judge.vocab_size),
                       .allowed = fmt::format("{}, the same tokenizer", policy.vocab_size)});
  }
  judges_.push_back(std::make_unique<FrozenModel>(config, reward.model, false, inputs.groups));
  return objective::make_model_judge(judges_.back()->decoder(), config.data.micro_batch_rows);
}

void RunObjective::build_policy(const RunConfig& config, const ObjectiveInputs& inputs) {
  objective::HoldWhole hold;
  if (inputs.parameters.stage() == 3) {
    hold = [&decoder = *inputs.tuned.decoder, &parameters = inputs.parameters] {
      return std::make_shared<WholeWeights>(decoder, parameters);
    };
  }
  auto rollout = std::make_unique<objective::Rollout>(
      config.objective,
      objective::RolloutParts{.train = inputs.train,
                              .held_out = inputs.held_out,
                              .world = inputs.world,
                              .hold_whole = std::move(hold),
                              .seed = static_cast<uint64_t>(config.train.seed),
                              .rows = config.data.micro_batch_rows});
  for (const objective::RewardConfig& reward : config.objective.rewards) {
    rollout->add(reward.kind, reward.weight, make_judge(config, reward, inputs));
    text_ += (&reward == &config.objective.rewards.front() ? ", rewards: " : ", ") + reward.kind;
  }
  if (config.objective.method == "ppo") {
    objective_ = std::make_unique<objective::Ppo>(
        config.objective, std::move(rollout), reference_.get(), inputs.world);
  } else {
    objective_ = std::make_unique<objective::Grpo>(
        config.objective, std::move(rollout), reference_.get(), inputs.world);
  }
}

}  // namespace kamerton::cli
