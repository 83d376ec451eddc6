// SPDX-License-Identifier: Apache-2.0
// Chat templates: conversations to text, as transformers' apply_chat_template renders them, in a
// sandboxed Jinja.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::text {

struct RenderedChat {
  std::string text;
  /// Byte spans [begin, end) of the {% generation %} blocks in `text`, in order.
  std::vector<std::pair<size_t, size_t>> generation_spans;
  /// For templates whose text is proved to grow only (ChatTemplate::grows()): where the loop over
  /// the messages begins to write, and where the text of each message ends. The first message may
  /// be left out of that loop. Empty for other templates.
  size_t turns_begin = 0;
  std::vector<size_t> turn_ends = {};
};

/// Bounds of one rendering; passing one is ErrorKind::Data.
struct RenderLimits {
  int64_t max_steps = 10'000'000;                ///< nodes evaluated and items looped over
  int64_t max_output_bytes = int64_t{64} << 20;  ///< of the text and of any value on the way
  int max_depth = 800;                           ///< of nested macro calls, blocks and expressions
};

struct RenderOptions {
  bool add_generation_prompt = false;
  /// A field name ("content"): the text ends where the last message's field ends, without closing
  /// markers.
  std::string continue_final_message = {};
  /// Seconds since 1970 that strftime_now formats as local time; absent: now. Fix it where ranks
  /// must agree.
  std::optional<int64_t> now = std::nullopt;
  RenderLimits limits = {};
};

/// A compiled template; immutable, all methods may be called from many threads at once.
class ChatTemplate {
 public:
  /// `special_tokens`: an object like {"bos_token": "<s>", "eos_token": "</s>"}, visible to the
  /// template. Throws ErrorKind::Data with the line on bad syntax.
  static ChatTemplate from_text(std::string_view jinja, const core::Json& special_tokens);

  /// `messages`: an array of {role, content, tool_calls, ...}; fields that are null are dropped,
  /// and reasoning is visible as `reasoning_content` and `thinking`, as in transformers 5. `extra`:
  /// further variables (an object): tools, documents, enable_thinking, ... Throws ErrorKind::Data
  /// when the template raises or cannot go on.
  RenderedChat render(const core::Json& messages,
                      bool add_generation_prompt,
                      const core::Json& extra) const;
  RenderedChat render(const core::Json& messages, bool add_generation_prompt) const;
  RenderedChat render(const core::Json& messages,
                      const RenderOptions& options,
                      const core::Json& extra) const;
  /// The bare template over the variables of an object, nothing added but the special tokens.
  RenderedChat render_variables(const core::Json& variables, const RenderOptions& options) const;

  /// Whether the template marks what the assistant says ({% generation %}).
  bool has_generation_marks() const;
  /// Whether the template's structure proves that the text of a conversation's first messages is
  /// the beginning of the whole's text up to the end of the last of them, and that what follows
  /// behind the last message is the same for all conversations.
  bool grows() const;
  /// The template as given, for exporting and hashing.
  const std::string& source() const;

 private:
  struct Impl;
  explicit ChatTemplate(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace kamerton::text
