// SPDX-License-Identifier: Apache-2.0
// What a chat template does that training should know of, found by rendering small conversations.
#pragma once

#include <string>
#include <vector>

#include "kamerton/text/bundle.h"

namespace kamerton::text {

struct TemplateFindings {
  /// The template marks what the assistant says ({% generation %}).
  bool marks_generation = false;
  /// The text of the first messages, and of the question with the generation prompt, is the
  /// beginning of the whole conversation's text: the model is trained on what it will be shown.
  bool prefix_preserving = true;
  /// An assistant's turn is followed by a token at which generation stops.
  bool ends_turns = false;
  /// The generation prompt adds something behind the last message.
  bool has_generation_prompt = false;
  /// A rendered conversation begins with the BOS token ...
  bool writes_bos = false;
  /// ... and more than once, or the tokenizer would put another before it if it were encoded with
  /// special tokens.
  bool doubles_bos = false;
  bool tokenizer_adds_bos = false;
  /// Messages can begin with a system message, and its text is shown.
  bool shows_system = false;
  /// What stands between the assistant's last words and the end of the text.
  std::string closing;
  /// One sentence a problem, for users; empty where the template is fit for training.
  std::vector<std::string> problems;
};

/// The bundle must have a chat template. `options`: how conversations will be rendered (a fixed
/// clock). Throws ErrorKind::Data when not even the plainest conversation can be rendered.
TemplateFindings lint_template(const TokenizerBundle& bundle, const RenderOptions& options = {});

}  // namespace kamerton::text
