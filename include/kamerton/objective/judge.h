// SPDX-License-Identifier: Apache-2.0
// What gives rewards to generated answers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/model/decoder.h"
#include "kamerton/objective/config.h"

namespace kamerton::objective {

/// A generated answer, as judges see it.
struct Answer {
  int64_t id = 0;         ///< of the prompt's place in the stream and the sample
  std::string prompt;     ///< the text that was continued
  std::string reference;  ///< what the record expects; empty: nothing
  std::string text;       ///< the answer, without special tokens
  std::vector<int64_t> prompt_ids;
  std::vector<int64_t> ids;  ///< with the end token when it was reached
  bool ended = false;        ///< at an end token, not by length
};

class Judge {
 public:
  virtual ~Judge() = default;
  /// A reward an answer, finite. All ranks call alike, each with its own answers, as many as the
  /// others.
  virtual std::vector<double> rewards(const std::vector<Answer>& answers) = 0;
};

/// match, equals, json_keys, json_schema: 1 or 0, by the answer alone. ErrorKind::Config for a
/// pattern or schema that is none.
std::unique_ptr<Judge> make_rule(const RewardConfig& config);

/// A model with a score head, read at `rows` answers at a time. Not owned.
std::unique_ptr<Judge> make_model_judge(model::Decoder& model, int64_t rows);

/// An executable: started once a rank, it reads a line of JSON an answer from its standard input,
/// {"id", "prompt", "completion", "reference", "ended"}, and writes {"id", "reward"} lines in any
/// order. On every rank the same error, of the first rank that has one: ErrorKind::Config when it
/// cannot be started, Io when it ends or does not answer in time, Data when it writes anything
/// else.
std::unique_ptr<Judge> make_program_judge(const RewardConfig& config, const comm::Group& world);

}  // namespace kamerton::objective
