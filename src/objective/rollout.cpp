// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/rollout.h"

#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/model/generate.h"
#include "kamerton/text/bundle.h"

#include "documents.h"

namespace kamerton::objective {
namespace {

constexpr uint64_t kHeldOut = uint64_t{1} << 63;  // draws of evaluation are others than training's

void add_to(MetricSum& metric, double value, double count) {
  metric.sum += value * count;
  metric.count += count;
}

}  // namespace

Rollout::Rollout(const ObjectiveConfig& config, RolloutParts parts)
    : config_(config.rollout), parts_(std::move(parts)) {}

void Rollout::add(const std::string& name, double weight, std::unique_ptr<Judge> judge) {
  judges_.push_back({name, weight, std::move(judge)});
}

std::vector<Answer> Rollout::ask(const std::vector<data::Batch>& prompts,
                                 const Phase& phase) const {
  const data::Dataset& set = phase.held_out ? *parts_.held_out : parts_.train;
  std::vector<Answer> answers;
  int64_t fillers = 0;
  const auto add = [&](Answer one, int64_t sample_id) {
    for (int64_t g = 0; g < config_.samples; ++g) {
      one.id = sample_id == data::kFiller ? -(++fillers) : sample_id * config_.samples + g;
      answers.push_back(one);
    }
  };
  int64_t count = 0;
  for (const data::Batch& batch : prompts) {
    for (size_t d = 0; d < document_count(batch); ++d, ++count) {
      Answer one;
      one.prompt_ids.assign(batch.tokens.begin() + batch.document_offsets[d],
                            batch.tokens.begin() + batch.document_offsets[d + 1]);
      if (batch.sample_ids[d] != data::kFiller) {
        const data::Question question = set.question(batch.source_indices[d]);
        one.prompt = question.prompt;
        one.reference = question.reference;
      }
      add(std::move(one), batch.sample_ids[d]);
    }
  }
  // Held-out prompts may not divide evenly: ranks that go forward together have as many each.
  for (const int64_t most = parts_.world.max(count); count < most; ++count) {
    Answer one;
    one.prompt_ids = {0};
    add(std::move(one), data::kFiller);
  }
  return answers;
}

void Rollout::answer(model::Decoder& model,
                     std::vector<Answer>& answers,
                     const Phase& phase) const {
  const text::TokenizerBundle& bundle = parts_.train.bundle();
  model::SampleOptions options;
  options.max_new_tokens = config_.max_new_tokens;
  options.temperature = config_.temperature;
  options.top_k = config_.top_k;
  options.top_p = config_.top_p;
  options.seed = parts_.seed ^ (phase.held_out ? kHeldOut : 0);
  options.vocab_limit = bundle.tokenizer.vocab_size();
  for (const int32_t id : bundle.stop_ids) {
    options.stop_ids.push_back(id);
  }
  std::vector<std::vector<int64_t>> prompts;
  for (const Answer& one : answers) {
    prompts.push_back(one.prompt_ids);
    options.keys.push_back(static_cast<uint64_t>(one.id));
  }
  const std::shared_ptr<void> whole = parts_.hold_whole ? parts_.hold_whole() : nullptr;
  const std::vector<model::Generated> generated = model::generate(model, prompts, options);
  for (size_t i = 0; i < answers.size(); ++i) {
    Answer& one = answers[i];
    one.ended = generated[i].stopped;
    one.ids = generated[i].tokens;
    const std::vector<int32_t> ids(one.ids.begin(), one.ids.end());
    one.text = bundle.tokenizer.decode(ids, true);
    if (one.ended) {
      one.ids.push_back(generated[i].stop_id);
    }
  }
}

data::Example Rollout::sequence_of(const Answer& answer) const {
  data::Example example;
  for (const std::vector<int64_t>* ids : {&answer.prompt_ids, &answer.ids}) {
    for (const int64_t id : *ids) {
      example.tokens.push_back(static_cast<int32_t>(id));
    }
  }
  example.targets.assign(example.tokens.size(), data::kNoTarget);
  const bool learned = answer.id >= 0 && (answer.ended || !config_.mask_truncated);
  for (size_t i = answer.prompt_ids.size(); i < example.tokens.size() && learned; ++i) {
    example.targets[i - 1] = example.tokens[i];
  }
  return example;
}

Generation Rollout::run(model::Decoder& model,
                        const std::vector<data::Batch>& prompts,
                        const Phase& phase) {
  std::vector<Answer> answers = ask(prompts, phase);
  answer(model, answers, phase);
  Generation generation;
  generation.rewards.assign(answers.size(), 0.0);
  for (const Answer& one : answers) {
    generation.counted.push_back(one.id >= 0 ? 1.0 : 0.0);
  }
  for (Judging& judging : judges_) {
    const std::vector<double> rewards = judging.judge->rewards(answers);
    for (size_t i = 0; i < rewards.size(); ++i) {
      generation.rewards[i] += judging.weight * rewards[i];
      add_to(judging.sum, rewards[i], generation.counted[i]);
    }
  }
  for (size_t i = 0; i < answers.size(); ++i) {
    const Answer& one = answers[i];
    generation.rewards[i] -= one.ended ? 0.0 : config_.missing_end_penalty;
    add_to(reward_, generation.rewards[i], generation.counted[i]);
    add_to(tokens_, static_cast<double>(one.ids.size()), generation.counted[i]);
    add_to(ended_, one.ended ? 1 : 0, generation.counted[i]);
    if (i % static_cast<size_t>(parts_.rows) == 0) {
      generation.batches.emplace_back();
    }
    data::Batch& batch = generation.batches.back();
    batch.append(sequence_of(one), one.id >= 0 ? one.id : data::kFiller);
    ++batch.rows;
  }
  return generation;
}

std::vector<std::string> Rollout::metric_names() const {
  std::vector<std::string> names = {"reward", "answer_tokens", "ended"};
  for (size_t i = 0; i < judges_.size() && judges_.size() > 1; ++i) {
    names.push_back(fmt::format("reward/{}_{}", i, judges_[i].name));
  }
  return names;
}

std::vector<MetricSum> Rollout::take_metrics() {
  std::vector<MetricSum> sums = {
      std::exchange(reward_, {}), std::exchange(tokens_, {}), std::exchange(ended_, {})};
  for (size_t i = 0; i < judges_.size() && judges_.size() > 1; ++i) {
    sums.push_back(std::exchange(judges_[i].sum, {}));
  }
  return sums;
}

at::Tensor target_rows(const data::Batch& batch) {
  return at::tensor(batch.targets, at::kLong).ne(data::kNoTarget).nonzero().squeeze(1);
}

}  // namespace kamerton::objective
