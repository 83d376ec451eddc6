// SPDX-License-Identifier: Apache-2.0
#include "chat_mask.h"

#include <algorithm>
#include <optional>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr std::string_view kBlanks = " \t\r\n";

std::string_view trim_right(std::string_view text) {
  const size_t last = text.find_last_not_of(kBlanks);
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

[[noreturn]] void cannot_prove(const std::string& origin, size_t turn) {
  throw Error(
      ErrorKind::Data,
      {.where = "data.mask",
       .what = fmt::format("{}: which tokens are the assistant's cannot be proved: the chat "
                           "template writes messages 0 to {} otherwise when others follow",
                           origin,
                           turn),
       .allowed = "a template with {% generation %} marks, or one whose text only grows",
       .hint = "data.train_on: completion (the last turn only) or all"});
}

/// The end of a turn without the line end that the template puts behind its closing marker. When
/// the turn's own text comes last there is no such marker, and blanks are the assistant's.
size_t turn_end(std::string_view text, size_t begin, size_t end, const Json& message) {
  const std::string_view turn = text.substr(begin, end - begin);
  const std::string_view trimmed = trim_right(turn);
  const Json* content = core::json_find(message, "content");
  if (trimmed.empty() || content == nullptr || !content->is_string()) {
    return begin + (trimmed.empty() ? turn.size() : trimmed.size());
  }
  const std::string_view said = trim_right(content->get_ref<const std::string&>());
  const bool marker_last = said.empty() || !trimmed.ends_with(said);
  return marker_last ? begin + trimmed.size() : end;
}

/// Where the text of each message lies, for a template that is proved to grow only; nothing where a
/// conversation does not fit that proof.
std::optional<std::vector<Span>> message_spans(const text::RenderedChat& whole, size_t messages) {
  const size_t skipped = messages - std::min(messages, whole.turn_ends.size());
  if (whole.turn_ends.empty() || skipped > 1 || whole.turn_ends.back() != whole.text.size()) {
    return std::nullopt;
  }
  std::vector<Span> spans(skipped, Span{whole.turns_begin, whole.turns_begin});
  size_t begin = whole.turns_begin;
  for (const size_t end : whole.turn_ends) {
    spans.emplace_back(begin, end);
    begin = end;
  }
  return spans;
}

/// The spans from two renderings: what the generation prompt adds is the same behind every message,
/// and every assistant turn must begin with it.
std::optional<std::vector<Span>> spans_of_growing(const text::ChatTemplate& chat_template,
                                                  const Json& messages,
                                                  const Json& variables,
                                                  text::RenderOptions options,
                                                  const text::RenderedChat& whole,
                                                  const std::string& origin) {
  const auto turns = message_spans(whole, messages.size());
  options.add_generation_prompt = true;
  const std::string asked = chat_template.render(messages, options, variables).text;
  if (!turns || !asked.starts_with(whole.text) ||
      messages[0].value("role", std::string()) == "assistant") {
    return std::nullopt;
  }
  const std::string_view prompt = std::string_view(asked).substr(whole.text.size());
  std::vector<Span> spans;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].value("role", std::string()) != "assistant") {
      continue;
    }
    const auto [begin, end] = (*turns)[i];
    if (!std::string_view(whole.text).substr(begin, end - begin).starts_with(prompt)) {
      cannot_prove(origin, i);
    }
    const size_t said = begin + prompt.size();
    spans.emplace_back(said, turn_end(whole.text, said, end, messages[i]));
  }
  return spans;
}

std::vector<Span> derive_spans(const text::ChatTemplate& chat_template,
                               const Json& messages,
                               const Json& variables,
                               const text::RenderOptions& options,
                               const std::string& whole,
                               const std::string& origin) {
  std::vector<Span> spans;
  Json prefix = Json::array();
  text::RenderOptions asking = options;
  asking.add_generation_prompt = true;
  size_t number = 0;
  for (const Json& message : messages) {
    const bool assistant = message.value("role", std::string()) == "assistant";
    if (!assistant) {
      prefix.push_back(message);
      ++number;
      continue;
    }
    if (prefix.empty()) {
      throw Error(
          ErrorKind::Data,
          {.where = "data.mask",
           .what = origin + ": the conversation starts with an assistant's turn, and without "
                            "{% generation %} marks nothing before it can be rendered",
           .hint = "a system's or user's message before it, or data.train_on: all"});
    }
    const std::string before = chat_template.render(prefix, asking, variables).text;
    prefix.push_back(message);
    const std::string after =
        ++number == messages.size() ? whole : chat_template.render(prefix, options, variables).text;
    if (!after.starts_with(before) || !whole.starts_with(after)) {
      cannot_prove(origin, number - 1);
    }
    spans.emplace_back(before.size(), turn_end(whole, before.size(), after.size(), message));
  }
  return spans;
}

}  // namespace

MaskedChat mask_chat(const text::ChatTemplate& chat_template,
                     const Json& messages,
                     const Json& variables,
                     const text::RenderOptions& options,
                     const std::string& origin) {
  text::RenderedChat rendered = chat_template.render(messages, options, variables);
  std::optional<std::vector<Span>> derived;
  if (!chat_template.has_generation_marks() && chat_template.grows()) {
    derived = spans_of_growing(chat_template, messages, variables, options, rendered, origin);
  }
  MaskedChat result{std::move(rendered.text), std::move(rendered.generation_spans)};
  if (derived) {
    result.assistant = std::move(*derived);
  } else if (!chat_template.has_generation_marks()) {
    result.assistant =
        derive_spans(chat_template, messages, variables, options, result.text, origin);
  }
  return result;
}

void mark_spans(const std::vector<Span>& spans,
                const std::vector<std::pair<int64_t, int64_t>>& offsets,
                std::vector<uint8_t>& trained) {
  size_t token = 0;
  for (const auto& [begin, end] : spans) {
    const auto from = static_cast<int64_t>(begin);
    const auto to = static_cast<int64_t>(end);
    while (token < offsets.size() && offsets[token].second <= from) {
      ++token;
    }
    size_t last = token;  // behind the last token that overlaps
    for (size_t i = token; i < offsets.size() && offsets[i].first < to; ++i) {
      if (offsets[i].second > from) {
        last = i + 1;
      }
    }
    for (size_t i = token; i < last; ++i) {
      trained[i] = 1;
    }
  }
}

}  // namespace kamerton::data
