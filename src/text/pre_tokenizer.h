// SPDX-License-Identifier: Apache-2.0
// The "pre_tokenizer" of a tokenizer.json: cuts a normalized text into the words that the model
// sees one by one.
#pragma once

#include <string>
#include <vector>

#include "kamerton/core/json.h"

#include "aligned_text.h"
#include "pattern.h"

namespace kamerton::text {

/// A text and the words in it, in order.
struct Words {
  AlignedText text;
  std::vector<Span> spans;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;
  PreTokenizer(const core::Json& json, const std::string& origin);

  /// words.spans must cover the text (one span) on entry. `at_start`: the text begins where the
  /// whole input does.
  void apply(Words& words, bool at_start) const;
  /// The words are to be read as bytes of the GPT-2 alphabet.
  bool byte_level() const { return byte_level_; }

 private:
  enum class Kind { Split, Space, Metaspace };
  enum class Prepend { Never, First, Always };
  struct Step {
    Kind kind;
    Pattern pattern = {};
    Behavior behavior = Behavior::Isolated;
    bool invert = false;
    std::string replacement = {};
    Prepend prepend = Prepend::Never;
    bool split = true;
  };
  void add(const core::Json& json, const std::string& origin, int depth);
  void add_byte_level(const core::Json& json, const std::string& origin);
  void add_metaspace(const core::Json& json, const std::string& origin);
  void add_split(Pattern pattern, Behavior behavior, bool invert = false);
  static void apply_split(const Step& step, Words& words);
  static void apply_space(Words& words);
  static void apply_metaspace(const Step& step, Words& words, bool at_start);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace kamerton::text
