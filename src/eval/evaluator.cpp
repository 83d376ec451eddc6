// SPDX-License-Identifier: Apache-2.0
#include "kamerton/eval/evaluator.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/objective/objective.h"
#include "kamerton/text/bundle.h"

namespace kamerton::eval {
namespace {

std::string trimmed(std::string_view text) {
  const auto is_space = [](unsigned char c) { return std::isspace(c) != 0; };
  const auto begin = std::find_if_not(text.begin(), text.end(), is_space);
  const auto end =
      std::find_if_not(text.rbegin(), std::make_reverse_iterator(begin), is_space).base();
  return {begin, end};
}

std::string first_line_folded(const std::string& text) {
  const std::string whole = trimmed(text);
  std::string line = trimmed(std::string_view(whole).substr(0, whole.find('\n')));
  std::transform(line.begin(), line.end(), line.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  return line;
}

/// The question as ids, and as a person reads it.
struct Prompt {
  std::vector<int64_t> ids;
  std::string text;
};

Prompt make_prompt(const data::EvalSet& set, int64_t index, const std::string& system) {
  const data::Question question = set.question(index);
  const data::Record record = set.record(index);
  Prompt prompt{.ids = {}, .text = question.prompt};
  std::string rendered = question.prompt;
  if (record.kind == data::Record::Kind::Chat && record.messages) {
    core::Json messages = *record.messages;
    const bool answered = !messages.empty() && messages.back().value("role", "") == "assistant";
    if (answered) {
      messages.erase(messages.size() - 1);
    }
    for (const core::Json& message : messages) {
      if (message.value("role", "") == "user" && message["content"].is_string()) {
        prompt.text = message["content"].get<std::string>();
      }
    }
    if (!system.empty()) {
      messages.insert(messages.begin(), core::Json{{"role", "system"}, {"content", system}});
      rendered =
          set.bundle().chat_template->render(messages, true, *record.template_variables).text;
    }
  }
  for (const int32_t id : set.bundle().tokenizer.encode(rendered, question.add_special_tokens)) {
    prompt.ids.push_back(id);
  }
  return prompt;
}

}  // namespace

double LossReport::loss() const {
  return targets > 0 ? nll_sum / static_cast<double>(targets) : 0;
}
double LossReport::perplexity() const {
  return std::exp(loss());
}
double LossReport::token_accuracy() const {
  return targets > 0 ? static_cast<double>(correct) / static_cast<double>(targets) : 0;
}
double AnswerReport::accuracy() const {
  return total > 0 ? static_cast<double>(correct) / static_cast<double>(total) : 0;
}

LossReport evaluate_loss(model::Decoder& model,
                         const data::EvalSet& set,
                         int64_t rows,
                         const comm::Group& world,
                         const BeforeForward& before_forward) {
  model::require_tokens(model.config(), "eval.loss");
  const at::NoGradGuard no_grad;
  data::EvalStream stream(set, rows, world.rank(), world.size());
  tensor::TokenLossOptions options;
  options.count_correct = true;
  LossReport report;
  while (const auto batch = stream.next()) {
    const objective::Tokens tokens = objective::to_tokens(*batch, model.device());
    if (before_forward) {
      before_forward(batch->source_indices, batch->document_offsets);
    }
    const tensor::TokenLoss part =
        model.loss(model.forward(tokens.rows), tokens.targets_N, options);
    report.nll_sum += part.nll_sum;
    report.targets += part.targets;
    report.correct += part.correct;
  }
  report.nll_sum = world.sum(report.nll_sum);
  report.targets = world.sum(report.targets);
  report.correct = world.sum(report.correct);
  if (report.targets == 0) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "eval.loss",
                       .what = "the evaluation data has no token to predict",
                       .hint = "kamerton data show"});
  }
  return report;
}

ObjectiveReport evaluate_objective(model::Decoder& model,
                                   objective::Objective& objective,
                                   const data::EvalSet& set,
                                   int64_t rows,
                                   const comm::Group& world) {
  const at::NoGradGuard no_grad;
  data::EvalStream stream(set, rows, world.rank(), world.size());
  std::vector<data::Batch> batches;
  while (auto batch = stream.next()) {
    batches.push_back(std::move(*batch));
  }
  objective.take_metrics();  // training's own begin anew
  batches = objective.prepare(model, std::move(batches), {.held_out = true});
  objective::Counts counts;
  for (const data::Batch& batch : batches) {
    counts += objective.counts(batch);
  }
  const auto shares = objective::Shares::of({.targets = world.sum(counts.targets),
                                             .pairs = world.sum(counts.pairs),
                                             .likelihood = world.sum(counts.likelihood)});
  double loss = 0;
  for (const data::Batch& batch : batches) {
    loss += objective.loss(model, batch, shares).item<double>();
  }
  ObjectiveReport report{.loss = world.sum(loss), .metrics = {}};
  const std::vector<std::string> names = objective.metric_names();
  const std::vector<objective::MetricSum> sums = objective.take_metrics();
  for (size_t i = 0; i < names.size(); ++i) {
    const double sum = world.sum(sums[i].sum);
    report.metrics.emplace_back(names[i], sum / std::max(world.sum(sums[i].count), 1.0));
  }
  return report;
}

bool matches(const std::string& text, const std::string& reference, Match match) {
  return match == Match::Exact ? trimmed(text) == trimmed(reference)
                               : first_line_folded(text) == first_line_folded(reference);
}

AnswerReport evaluate_answers(model::Decoder& model,
                              const data::EvalSet& set,
                              const AnswerOptions& options,
                              const comm::Group& world) {
  const int64_t size = options.limit > 0 ? std::min(options.limit, set.size()) : set.size();
  AnswerReport report;
  std::vector<std::vector<int64_t>> prompts;
  for (int64_t index = world.rank(); index < size; index += world.size()) {
    Prompt prompt = make_prompt(set, index, options.system);
    Answer answer;
    answer.index = index;
    answer.question = std::move(prompt.text);
    answer.reference = set.question(index).reference;
    report.answers.push_back(std::move(answer));
    prompts.push_back(std::move(prompt.ids));
  }
  model::SampleOptions sample = options.sample;
  for (const int32_t id : set.bundle().stop_ids) {
    sample.stop_ids.push_back(id);
  }
  if (options.before_forward) {
    sample.before_forward = [&](const std::vector<size_t>& prompts_now,
                                const std::vector<int64_t>& offsets) {
      std::vector<int64_t> examples;
      for (const size_t prompt : prompts_now) {
        examples.push_back(report.answers[prompt].index);
      }
      options.before_forward(examples, offsets);
    };
  }
  model::TokenCallback ends_with_line;
  if (options.match == Match::FirstLine) {  // what comes after the first line is not looked at
    ends_with_line = [&set](size_t, int64_t token) {
      const auto id = static_cast<int32_t>(token);
      return set.bundle().tokenizer.decode(std::span(&id, 1), true).find('\n') == std::string::npos;
    };
  }
  const std::vector<model::Generated> generated =
      prompts.empty() ? std::vector<model::Generated>{}
                      : model::generate(model, prompts, sample, ends_with_line);
  int64_t correct = 0;
  for (size_t i = 0; i < generated.size(); ++i) {
    Answer& answer = report.answers[i];
    const std::vector<int32_t> ids(generated[i].tokens.begin(), generated[i].tokens.end());
    answer.text = set.bundle().tokenizer.decode(ids, true);
    answer.correct = matches(answer.text, answer.reference, options.match);
    correct += answer.correct ? 1 : 0;
  }
  report.correct = world.sum(correct);
  report.total = world.sum(static_cast<int64_t>(generated.size()));
  return report;
}

}  // namespace kamerton::eval
