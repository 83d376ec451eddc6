// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "record_parts.h"

namespace kamerton::data {

using core::Error;
using core::ErrorKind;
using core::Json;

namespace {

constexpr char kLayoutWhere[] = "data.layout";
constexpr std::array<std::pair<Layout, const char*>, 9> kNames = {{
    {Layout::Messages, "messages"},
    {Layout::PromptCompletion, "prompt_completion"},
    {Layout::Alpaca, "alpaca"},
    {Layout::ShareGpt, "sharegpt"},
    {Layout::Text, "text"},
    {Layout::Preference, "preference"},
    {Layout::UnpairedPreference, "unpaired_preference"},
    {Layout::Prompt, "prompt"},
    {Layout::Stepwise, "stepwise"},
}};

Record from_messages(const Json& json, const std::string& origin) {
  const bool other_name = column(json, "messages") == nullptr;
  const char* name = other_name ? "conversations" : "messages";
  const Json* messages = column(json, name);
  if (messages == nullptr) {
    complain(origin, "the column 'messages' is missing", describe_columns(json));
  }
  check_messages(*messages, name, origin);
  return chat_record(*messages, template_variables(json, origin), -1, origin);
}

/// Alpaca: user text is instruction, a line end, input; history holds earlier [user, assistant]
/// turns.
Record from_alpaca(const Json& json, bool chat, const std::string& origin) {
  std::string user = text_column(json, "instruction", origin);
  const std::string input = optional_text(json, "input", origin);
  if (!input.empty()) {
    user += user.empty() ? input : "\n" + input;
  }
  Json messages = Json::array();
  if (const std::string system = optional_text(json, "system", origin); !system.empty()) {
    messages.push_back(message("system", system));
  }
  if (const Json* history = column(json, "history")) {
    for (const Json& turn : *history) {
      if (!turn.is_array() || turn.size() != 2 || !turn[0].is_string() || !turn[1].is_string()) {
        complain(origin, "a turn of 'history' is not a pair", {}, "[user text, assistant text]");
      }
      messages.push_back(message("user", turn[0].get<std::string>()));
      messages.push_back(message("assistant", turn[1].get<std::string>()));
    }
  }
  messages.push_back(message("user", std::move(user)));
  std::string answer = text_column(json, "output", origin);
  if (chat) {
    messages.push_back(message("assistant", std::move(answer)));
    return chat_record(std::move(messages), Json::object(), -1, origin);
  }
  std::string prompt;
  for (const Json& turn : messages) {
    prompt += turn["content"].get_ref<const std::string&>() + "\n";
  }
  return text_record(std::move(prompt), std::move(answer), Record::Kind::Pair, origin);
}

Record from_sharegpt(const Json& json, const std::string& origin) {
  const Json* turns = column(json, "conversations");
  if (turns == nullptr || !turns->is_array() || turns->empty()) {
    complain(origin, "the column 'conversations' holds no turns", describe_columns(json));
  }
  Json messages = Json::array();
  if (const std::string system = optional_text(json, "system", origin); !system.empty()) {
    messages.push_back(message("system", system));
  }
  size_t number = 0;
  for (const Json& turn : *turns) {
    messages.push_back(
        sharegpt_message(turn, fmt::format("{}: conversations[{}]", origin, number++)));
  }
  return chat_record(std::move(messages), template_variables(json, origin), -1, origin);
}

/// Whether a column called `label` says good or bad, and is no class of something.
bool is_label(const Json* label) {
  return label != nullptr &&
         (label->is_boolean() || (label->is_string() && (*label == "true" || *label == "false" ||
                                                         *label == "True" || *label == "False")));
}

/// The message of a parse error without the text that the parser quotes: it may be anything.
std::string without_quotes(std::string text) {
  for (const char* mark : {"; last read", "; got "}) {
    text = text.substr(0, text.find(mark));
  }
  const size_t bracket = text.find("] ");
  return bracket == std::string::npos ? text : text.substr(bracket + 2);
}

}  // namespace

std::string_view name_of(Layout layout) {
  for (const auto& [value, name] : kNames) {
    if (value == layout) {
      return name;
    }
  }
  return "?";
}

Layout layout_from(const std::string& name) {
  for (const auto& [value, known] : kNames) {
    if (name == known) {
      return value;
    }
  }
  throw Error(ErrorKind::Config,
              {.where = kLayoutWhere,
               .what = "unknown data.layout",
               .got = "'" + name + "'",
               .allowed = "auto, messages, prompt_completion, alpaca, sharegpt, text, preference, "
                          "unpaired_preference, prompt, stepwise"});
}

std::optional<Layout> detect_layout(const Json& record) {
  if (!record.is_object()) {
    return std::nullopt;
  }
  if (column(record, "chosen") != nullptr && column(record, "rejected") != nullptr) {
    return Layout::Preference;
  }
  if (column(record, "messages") != nullptr) {
    return Layout::Messages;
  }
  if (const Json* turns = column(record, "conversations")) {
    const bool roles = turns->is_array() && !turns->empty() && turns->front().is_object() &&
                       column(turns->front(), "role") != nullptr;
    return roles ? Layout::Messages : Layout::ShareGpt;
  }
  if (column(record, "completions") != nullptr && column(record, "labels") != nullptr) {
    return Layout::Stepwise;
  }
  if (column(record, "prompt") != nullptr && column(record, "completion") != nullptr) {
    return is_label(column(record, "label")) ? Layout::UnpairedPreference
                                             : Layout::PromptCompletion;
  }
  if (column(record, "instruction") != nullptr && column(record, "output") != nullptr) {
    return Layout::Alpaca;
  }
  if (column(record, "text") != nullptr) {
    return Layout::Text;
  }
  const bool answered = column(record, "chosen") != nullptr ||
                        column(record, "rejected") != nullptr ||
                        column(record, "completion") != nullptr;
  if (column(record, "prompt") != nullptr && !answered) {
    return Layout::Prompt;
  }
  return std::nullopt;
}

std::string describe_columns(const Json& record) {
  if (!record.is_object()) {
    return record.type_name();
  }
  std::string names;
  int shown = 0;
  for (const auto& [name, value] : record.items()) {
    if (++shown > 12) {
      names += ", ...";
      break;
    }
    names += (names.empty() ? "'" : ", '") + name.substr(0, 40) + "'";
  }
  return names.empty() ? "no columns" : "columns " + names;
}

Json parse_record(std::string_view text, const std::string& origin, size_t max_bytes) {
  try {
    return core::parse_json(text, origin, {.max_bytes = max_bytes, .max_depth = 64});
  } catch (const Error& error) {
    throw Error(error.kind(), {.where = kLayoutWhere, .what = without_quotes(error.what())});
  }
}

Record to_record(const Json& json, Layout layout, bool chat, const std::string& origin) {
  if (!json.is_object()) {
    complain(origin, "the record is not an object", json.type_name(), "{\"column\": ...}");
  }
  switch (layout) {
    case Layout::Messages:
      return from_messages(json, origin);
    case Layout::PromptCompletion:
      return from_pair(json, origin);
    case Layout::Alpaca:
      return from_alpaca(json, chat, origin);
    case Layout::ShareGpt:
      return from_sharegpt(json, origin);
    case Layout::Preference:
      return from_preference(json, origin);
    case Layout::UnpairedPreference:
      return from_unpaired(json, origin);
    case Layout::Prompt:
      return from_prompt(json, origin);
    case Layout::Stepwise:
      return from_steps(json, origin);
    case Layout::Text:
      break;
  }
  return text_record({}, text_column(json, "text", origin), Record::Kind::Text, origin);
}

}  // namespace kamerton::data
