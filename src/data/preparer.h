// SPDX-License-Identifier: Apache-2.0
// One record to tokens and trained flags, by the rules of TRL's SFTTrainer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kamerton/data/example.h"
#include "kamerton/text/chat_template.h"

namespace kamerton::text {
struct TokenizerBundle;
}

namespace kamerton::data {

enum class TrainOn { All, Completion, Assistant };

inline const char* name_of(TrainOn train_on) {
  return train_on == TrainOn::All          ? "all"
         : train_on == TrainOn::Completion ? "completion"
                                           : "assistant";
}

struct Tokenized {
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;  ///< one a token
  /// Tokens merge across the end of the prompt: the trained part starts where prompt and whole
  /// differ.
  bool boundary_moved = false;
};

/// Two answers to one prompt, trained from the same position on.
struct TokenizedPair {
  Tokenized chosen;
  Tokenized rejected;
};

/// Immutable, thread-safe. The bundle must outlive it.
class Preparer {
 public:
  Preparer(const text::TokenizerBundle& bundle, TrainOn train_on, int64_t template_time);

  /// Text and text pairs get the end token behind them unless they end with it; conversations
  /// never. A conversation's prompt is rendered with the generation prompt and must be a prefix of
  /// the whole. ErrorKind::Data naming the record's origin when a mask cannot be had or the
  /// template fails.
  Tokenized prepare(const Record& record) const;
  /// A preference, as TRL's DPOTrainer: the answers start where the prompt's tokens and those of
  /// either whole part first.
  TokenizedPair prepare_preference(const Record& record) const;
  TrainOn train_on() const { return train_on_; }
  Question question(const Record& record) const;
  /// A document for text_windows: `first` and `last` tell whether it starts and ends here.
  std::vector<int32_t> encode_document(const std::string& text, bool first, bool last) const;

 private:
  Tokenized prepare_text(const Record& record) const;
  Tokenized prepare_pair(const Record& record) const;
  Tokenized prepare_chat(const Record& record) const;
  std::string render_prompt(const Record& record, int64_t count) const;
  void clear_prompt(const std::vector<int32_t>& prompt, Tokenized& result) const;
  std::string with_end(std::string text) const;
  const text::ChatTemplate& chat_template(const Record& record) const;
  int64_t prompt_length(const Record& record) const;

  const text::TokenizerBundle* bundle_;
  TrainOn train_on_;
  text::RenderOptions options_;
};

}  // namespace kamerton::data
