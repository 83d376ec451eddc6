// SPDX-License-Identifier: Apache-2.0
// Examples of objectives that generate answers, judge them, or judge their steps.
#include <algorithm>

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

/// Where the answer begins.
std::ptrdiff_t answer_begin(const Example& example) {
  const auto first = std::find_if(
      example.targets.begin(), example.targets.end(), [](int32_t t) { return t != kNoTarget; });
  return first - example.targets.begin() + 1;
}

/// The prompt of one example with the answer of another, cut to `limit` tokens.
Example joined(const Example& prompt, const Example& answer, size_t limit) {
  const std::ptrdiff_t own = answer_begin(prompt);
  const std::ptrdiff_t theirs = answer_begin(answer);
  Example result;
  result.source_index = prompt.source_index;
  result.label = prompt.label;
  result.tokens.assign(prompt.tokens.begin(), prompt.tokens.begin() + own);
  result.targets.assign(prompt.targets.begin(), prompt.targets.begin() + own);
  result.targets.back() = answer.targets[static_cast<size_t>(theirs - 1)];
  result.tokens.insert(result.tokens.end(), answer.tokens.begin() + theirs, answer.tokens.end());
  result.targets.insert(
      result.targets.end(), answer.targets.begin() + theirs, answer.targets.end());
  if (result.tokens.size() > limit) {
    result.tokens.resize(limit);
    result.targets.resize(limit);
    result.targets.back() = kNoTarget;
  }
  return result;
}

}  // namespace

/// Objectives that generate: the prompt as a question is asked, without targets.
Prepared Dataset::Impl::prepare_prompt(int64_t index) const {
  Prepared result;
  result.example.source_index = index;
  Tokenized prompt;
  try {
    const Question question = preparers[sources.part_of(index)].question(sources.record(index));
    prompt.ids = bundle.tokenizer.encode(question.prompt, question.add_special_tokens);
  } catch (const Error&) {
    sources.tolerate_current_error(index);
    ++skipped_bad;
    return result;
  }
  ++examples;
  prompt.trained.assign(prompt.ids.size(), 0);
  result.whole_tokens = static_cast<int64_t>(prompt.ids.size());
  if (!prompt.ids.empty() && fit(prompt, result, sources.origin(index))) {
    result.example.targets.assign(prompt.ids.size(), kNoTarget);
    result.example.tokens = std::move(prompt.ids);
  }
  return result;
}

/// As TRL's PRMTrainer: prompt, and each step with a line end, as tokens of their own.
Prepared Dataset::Impl::prepare_steps(int64_t index) const {
  Prepared result;
  result.example.source_index = index;
  Tokenized all;
  std::vector<int32_t> targets;
  try {
    const Record record = sources.record(index);
    all.ids = bundle.tokenizer.encode(record.prompt, true);
    targets.assign(all.ids.size(), kNoTarget);
    const std::vector<int32_t> line_end = bundle.tokenizer.encode("\n", false);
    for (const auto& [step, good] : record.steps) {
      const std::vector<int32_t> ids = bundle.tokenizer.encode(step, false);
      all.ids.insert(all.ids.end(), ids.begin(), ids.end());
      all.ids.insert(all.ids.end(), line_end.begin(), line_end.end());
      targets.resize(all.ids.size(), kNoTarget);
      targets.back() = good ? 1 : 0;
    }
  } catch (const Error&) {
    sources.tolerate_current_error(index);
    ++skipped_bad;
    return result;
  }
  ++examples;
  result.whole_tokens = static_cast<int64_t>(all.ids.size());
  all.trained.assign(all.ids.size(), 0);
  const std::string origin = sources.origin(index);
  if (!fit(all, result, origin)) {
    return result;
  }
  if (config.too_long == "truncate_start") {
    targets.erase(targets.begin(), targets.end() - static_cast<std::ptrdiff_t>(all.ids.size()));
  }
  targets.resize(all.ids.size());
  Example example;
  example.source_index = index;
  example.tokens = std::move(all.ids);
  example.targets = std::move(targets);
  if (has_target(result, example, origin)) {
    result.example = std::move(example);
  }
  return result;
}

Example Dataset::Impl::mismatch(const Example& own) const {
  const int64_t count = size();
  for (int64_t step = 0; step + 1 < count; ++step) {
    const int64_t index = (own.source_index + std::max<int64_t>(count / 2, 1) + step) % count;
    const Example other = index == own.source_index ? Example() : prepare(index).example;
    if (!other.tokens.empty()) {
      return joined(own, other, static_cast<size_t>(sequence_length));
    }
  }
  throw Error(ErrorKind::Data,
              {.where = "data.dataset",
               .what = "judged answers need another example, to estimate the KL divergence with",
               .got = fmt::format("{} example(s)", count),
               .allowed = "at least two that can be used"});
}

}  // namespace kamerton::data
