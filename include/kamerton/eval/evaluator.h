// SPDX-License-Identifier: Apache-2.0
// Measuring a model on held-out data: sums and counts over all ranks, divided once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/data/stream.h"
#include "kamerton/model/decoder.h"
#include "kamerton/model/generate.h"
#include "kamerton/objective/objective.h"

namespace kamerton::eval {

struct LossReport {
  double nll_sum = 0;   ///< natural logarithm
  int64_t targets = 0;  ///< tokens with a target
  int64_t correct = 0;  ///< of these, predicted as the most likely token

  double loss() const;        ///< mean over targets
  double perplexity() const;  ///< exp(loss)
  double token_accuracy() const;
};

/// Told before each forward which examples of the set its documents are, and where they begin
/// ([D + 1], 0 ... N): for several adapters in one batch. Empty: nobody.
using BeforeForward =
    std::function<void(const std::vector<int64_t>& examples, const std::vector<int64_t>& offsets)>;

/// Every example once, spread over the ranks of `world`; collective. Works on a sharded model too.
/// ErrorKind::Data when the set has no target at all.
LossReport evaluate_loss(model::Decoder& model,
                         const data::EvalSet& set,
                         int64_t rows,
                         const comm::Group& world,
                         const BeforeForward& before_forward = {});

/// What an objective says of held-out data.
struct ObjectiveReport {
  double loss = 0;
  std::vector<std::pair<std::string, double>> metrics;
};

/// The objective's loss and metrics over every example once, spread over the ranks of `world`;
/// collective.
ObjectiveReport evaluate_objective(model::Decoder& model,
                                   objective::Objective& objective,
                                   const data::EvalSet& set,
                                   int64_t rows,
                                   const comm::Group& world);

/// How an answer is compared with the reference.
enum class Match {
  Exact,      ///< the whole text, white space trimmed at both ends
  FirstLine,  ///< the first line, letter case and white space at the ends ignored
};

struct AnswerOptions {
  Match match = Match::Exact;
  model::SampleOptions sample;
  std::string system;  ///< put before every conversation as the system's message when not empty
  int64_t limit = 0;   ///< first so many examples; 0: all
  BeforeForward before_forward = {};
};

struct Answer {
  int64_t index = 0;  ///< in the data set
  std::string question;
  std::string reference;
  std::string text;  ///< what the model said
  bool correct = false;
};

struct AnswerReport {
  int64_t correct = 0;
  int64_t total = 0;
  std::vector<Answer> answers;  ///< this rank's, in order of index

  double accuracy() const;
};

/// Generates an answer to every question, spread over ranks that each hold the whole model;
/// collective. The counts are of all ranks.
AnswerReport evaluate_answers(model::Decoder& model,
                              const data::EvalSet& set,
                              const AnswerOptions& options,
                              const comm::Group& world);

/// Whether `text` counts as `reference`.
bool matches(const std::string& text, const std::string& reference, Match match);

}  // namespace kamerton::eval
