// SPDX-License-Identifier: Apache-2.0
// What the model sees: one example, and a batch of examples laid end to end without padding.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::data {

/// A position that is not trained.
inline constexpr int32_t kNoTarget = -100;
/// Sample id of a document that is there to keep ranks in step and counts for nothing.
inline constexpr int64_t kFiller = -1;

/// A record of any layout before it becomes tokens; also what exact-match evaluation asks and
/// expects.
struct Record {
  enum class Kind {
    Text,  ///< `completion` is raw text
    Pair,  ///< raw text: `prompt`, `completion`
    Chat,  ///< `messages`; those from `prompt_messages` on are the completion
    /// From a token store: `completion` is the text of the tokens, special ones left out
    Tokens,
  };
  Kind kind = Kind::Text;
  std::string prompt;
  std::string completion;
  /// Chat: an array of {role, content, ...}; never null then.
  std::shared_ptr<const core::Json> messages;
  /// Chat: how many of `messages` are prompt; -1: a conversation without a prompt part.
  int64_t prompt_messages = -1;
  /// Chat: further template variables (tools, enable_thinking, ...): an object, never null then.
  std::shared_ptr<const core::Json> template_variables;
  /// Preferences: the same prompt with the worse answer; the record itself has the better one.
  std::shared_ptr<const Record> rejected = nullptr;
  /// Unpaired preferences: whether the completion is a good one.
  std::optional<bool> label = std::nullopt;
  /// Preferences: by how much the better answer is better.
  std::optional<double> margin = std::nullopt;
  /// Answers in steps: each with whether it is a good one.
  std::vector<std::pair<std::string, bool>> steps = {};
  /// "file:line".
  std::string origin;
};

/// A question to the model and the answer that the data gives.
struct Question {
  std::string prompt;              ///< text to continue: the chat template is already applied
  bool add_special_tokens = true;  ///< for Tokenizer::encode (false after a chat template)
  std::string reference;           ///< the completion, or the text of the last assistant turn
  std::string origin;              ///< "file:line"
};

/// One tokenized example. `tokens` is empty when the rules (too_long, on_no_target) leave it out.
struct Example {
  std::vector<int32_t> tokens;
  /// As long as `tokens`: targets[i] = tokens[i + 1] where that token is trained, else kNoTarget;
  /// the last is kNoTarget. Of answers judged by steps: 1 or 0 where a step ends, else kNoTarget.
  std::vector<int32_t> targets;
  /// Where documents start within `tokens` (text_windows only; else just 0).
  std::vector<int32_t> document_starts = {0};
  /// Preferences: prompt and worse answer as the tokens of a sequence of its own; the example
  /// itself is prompt and better answer. Targets are the answers', in both from the same position
  /// on (TRL's DPOTrainer). Never null then.
  std::shared_ptr<const Example> rejected = nullptr;
  /// Unpaired preferences: whether the completion is a good one.
  std::optional<bool> label = std::nullopt;
  /// Judged answers: this prompt with the answer to another one (KTO's estimate of the KL
  /// divergence). Never null then.
  std::shared_ptr<const Example> mismatched = nullptr;
  double margin = 0;  ///< of a pair, 0 when the record gives none
  /// Its number in the data set.
  int64_t source_index = 0;

  int64_t target_count() const;
  /// Tokens of all its sequences: of both answers of a pair, of judged and mismatched answer.
  int64_t length() const;
};

/// A micro-batch without padding: T tokens of D documents, end to end. Attention is within a
/// document.
struct Batch {
  std::vector<int64_t> tokens;            ///< [T]
  std::vector<int64_t> targets;           ///< [T], kNoTarget where nothing is trained
  std::vector<int64_t> positions;         ///< [T], restart at 0 with each document
  std::vector<int64_t> document_offsets;  ///< [D + 1], 0 ... T
  /// [D], the stream index of the example that each document comes from: unique over a run, the
  /// same on any number of ranks. Key random draws (dropout, noise) by it and the position.
  /// A pair is two documents: the better answer, then the worse one.
  /// A judged answer is two as well: itself, then the mismatched one.
  std::vector<int64_t> sample_ids;
  std::vector<int64_t> source_indices;  ///< [D], of the examples in the data set
  /// [D], what the record says: 1 good or 0 bad of a judged answer, the margin of a pair.
  std::vector<float> marks;
  /// What an objective has put beside tokens [T] or documents [D], by name.
  std::map<std::string, std::vector<float>> attached;
  int64_t target_count = 0;  ///< targets that are not kNoTarget, without mismatched answers
  int64_t rows = 0;          ///< packed rows (= examples without packing)

  void append(const Example& example, int64_t sample_id);
};

}  // namespace kamerton::data
