// SPDX-License-Identifier: Apache-2.0
// From prompts to answers with rewards: what the model says, and what judges say of it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/data/dataset.h"
#include "kamerton/objective/judge.h"
#include "kamerton/objective/objective.h"
#include "kamerton/objective/reference.h"

namespace kamerton::objective {

/// Makes the trained model's parameters whole on every rank for as long as the result lives; empty
/// where they are. Collective.
using HoldWhole = std::function<std::shared_ptr<void>()>;

/// What a rollout needs besides the model.
struct RolloutParts {
  const data::Dataset& train;
  const data::Dataset* held_out = nullptr;
  comm::Group world = {};
  HoldWhole hold_whole = {};
  uint64_t seed = 0;
  int64_t rows = 1;  ///< answers of a micro-batch
};

/// Answers of this rank. Answer a is document a % rows of batch a / rows; the `samples` answers to
/// one prompt stand together.
struct Generation {
  std::vector<data::Batch> batches;  ///< prompt and answer; the answer's tokens are the targets
  std::vector<double> rewards;       ///< an answer
  std::vector<double> counted;       ///< 0 for one that only keeps ranks in step
};

class Rollout {
 public:
  Rollout(const ObjectiveConfig& config, RolloutParts parts);

  void add(const std::string& name, double weight, std::unique_ptr<Judge> judge);

  /// Generates `samples` answers to each document and has them judged. Draws are keyed by the
  /// prompt's place in the stream, the sample and the token: the same on any number of ranks.
  /// Collective.
  Generation run(model::Decoder& model,
                 const std::vector<data::Batch>& prompts,
                 const Phase& phase);

  /// reward, one a judge when there are several, answer_tokens, ended.
  std::vector<std::string> metric_names() const;
  std::vector<MetricSum> take_metrics();

 private:
  struct Judging {
    std::string name;
    double weight = 1;
    std::unique_ptr<Judge> judge;
    MetricSum sum = {};
  };

  std::vector<Answer> ask(const std::vector<data::Batch>& prompts, const Phase& phase) const;
  void answer(model::Decoder& model, std::vector<Answer>& answers, const Phase& phase) const;
  data::Example sequence_of(const Answer& answer) const;

  RolloutConfig config_;
  RolloutParts parts_;
  std::vector<Judging> judges_;
  MetricSum reward_, tokens_, ended_;
};

/// Rows of a batch that have a target, int64 [M].
at::Tensor target_rows(const data::Batch& batch);

}  // namespace kamerton::objective
