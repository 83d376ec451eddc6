// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#include <array>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr char kWhere[] = "data.layout";
constexpr std::array<std::pair<Layout, const char*>, 5> kNames = {{
    {Layout::Messages, "messages"},
    {Layout::PromptCompletion, "prompt_completion"},
    {Layout::Alpaca, "alpaca"},
    {Layout::ShareGpt, "sharegpt"},
    {Layout::Text, "text"},
}};

[[noreturn]] void complain(const std::string& origin,
                           const std::string& what,
                           const std::string& got = {},
                           const std::string& allowed = {}) {
  throw Error(ErrorKind::Data,
              {.where = kWhere, .what = origin + ": " + what, .got = got, .allowed = allowed});
}

/// The column, nullptr when it is missing or null.
const Json* column(const Json& json, const char* name) {
  return core::json_find(json, name);
}

std::string text_column(const Json& json, const char* name, const std::string& origin) {
  const Json* value = column(json, name);
  if (value == nullptr || !value->is_string()) {
    complain(origin,
             fmt::format("the column '{}' is not text", name),
             value == nullptr ? "nothing" : value->type_name(),
             "a string");
  }
  return value->get<std::string>();
}

std::string optional_text(const Json& json, const char* name, const std::string& origin) {
  return column(json, name) == nullptr ? std::string() : text_column(json, name, origin);
}

void check_content(const Json& message, const std::string& place) {
  const Json* content = core::json_find(message, "content");
  const bool other = core::json_find(message, "tool_calls") != nullptr ||
                     core::json_find(message, "reasoning_content") != nullptr ||
                     core::json_find(message, "thinking") != nullptr;
  if (content == nullptr ? !other : !content->is_string() && !content->is_array()) {
    complain(place,
             "a message has no text",
             content == nullptr ? "no 'content'" : content->type_name(),
             "'content' as a string, or 'tool_calls'");
  }
}

/// An array of {role, content}.
void check_messages(const Json& messages, const char* name, const std::string& origin) {
  if (!messages.is_array() || messages.empty()) {
    complain(origin,
             fmt::format("the column '{}' holds no messages", name),
             messages.is_array() ? "an empty list" : messages.type_name(),
             "a list of {role, content}");
  }
  size_t number = 0;
  for (const Json& message : messages) {
    const std::string place = fmt::format("{}: {}[{}]", origin, name, number++);
    const Json* role = message.is_object() ? core::json_find(message, "role") : nullptr;
    if (role == nullptr || !role->is_string()) {
      complain(place, "a message has no role", {}, "{\"role\": ..., \"content\": ...}");
    }
    check_content(message, place);
  }
}

/// Template variables that come with a record: tools (a list, or the JSON text of one), documents,
/// others.
Json template_variables(const Json& json, const std::string& origin) {
  Json variables = Json::object();
  if (const Json* more = column(json, "chat_template_kwargs")) {
    if (!more->is_object()) {
      complain(origin, "'chat_template_kwargs' is not an object", more->type_name());
    }
    variables = *more;
  }
  if (const Json* tools = column(json, "tools")) {
    const bool text = tools->is_string();
    if (text && tools->get_ref<const std::string&>().empty()) {
      return variables;
    }
    Json list = text
                    ? parse_record(
                          tools->get_ref<const std::string&>(), origin + ": tools", size_t{1} << 24)
                    : *tools;
    if (!list.is_array()) {
      complain(
          origin, "'tools' is not a list", list.type_name(), "a list, or the JSON text of one");
    }
    if (!list.empty()) {
      variables["tools"] = std::move(list);
    }
  }
  if (const Json* documents = column(json, "documents")) {
    variables["documents"] = *documents;
  }
  return variables;
}

Record chat_record(Json messages, Json variables, int64_t prompt, const std::string& origin) {
  Record record;
  record.kind = Record::Kind::Chat;
  record.messages = std::make_shared<const Json>(std::move(messages));
  record.template_variables = std::make_shared<const Json>(std::move(variables));
  record.prompt_messages = prompt;
  record.origin = origin;
  return record;
}

Record text_record(std::string prompt,
                   std::string completion,
                   Record::Kind kind,
                   const std::string& origin) {
  Record record;
  record.kind = kind;
  record.prompt = std::move(prompt);
  record.completion = std::move(completion);
  record.origin = origin;
  return record;
}

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

Record from_pair(const Json& json, const std::string& origin) {
  const Json* prompt = column(json, "prompt");
  const Json* completion = column(json, "completion");
  if (prompt == nullptr || completion == nullptr) {
    complain(origin,
             fmt::format("the column '{}' is missing", prompt == nullptr ? "prompt" : "completion"),
             describe_columns(json));
  }
  if (prompt->is_string() && completion->is_string()) {
    return text_record(
        prompt->get<std::string>(), completion->get<std::string>(), Record::Kind::Pair, origin);
  }
  if (prompt->is_string() || completion->is_string()) {
    complain(origin,
             "one of prompt and completion is text, the other is not",
             {},
             "two strings, or two lists of messages");
  }
  check_messages(*prompt, "prompt", origin);
  check_messages(*completion, "completion", origin);
  Json messages = *prompt;
  messages.insert(messages.end(), completion->begin(), completion->end());
  return chat_record(std::move(messages),
                     template_variables(json, origin),
                     static_cast<int64_t>(prompt->size()),
                     origin);
}

Json message(const char* role, std::string content) {
  Json result = Json::object();
  result["role"] = role;
  result["content"] = std::move(content);
  return result;
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

const char* sharegpt_role(const std::string& tag) {
  constexpr std::array<std::pair<const char*, const char*>, 9> kTags = {{
      {"human", "user"},
      {"user", "user"},
      {"gpt", "assistant"},
      {"assistant", "assistant"},
      {"function_call", "assistant"},
      {"system", "system"},
      {"observation", "tool"},
      {"function_response", "tool"},
      {"tool", "tool"},
  }};
  for (const auto& [from, role] : kTags) {
    if (tag == from) {
      return role;
    }
  }
  return nullptr;
}

Json sharegpt_message(const Json& turn, const std::string& place) {
  const bool whole = turn.is_object() && column(turn, "from") != nullptr &&
                     column(turn, "from")->is_string() && column(turn, "value") != nullptr &&
                     column(turn, "value")->is_string();
  if (!whole) {
    complain(place, "a turn is not complete", {}, "{\"from\": ..., \"value\": ...} with strings");
  }
  const auto& tag = column(turn, "from")->get_ref<const std::string&>();
  const auto& value = column(turn, "value")->get_ref<const std::string&>();
  const char* role = sharegpt_role(tag);
  if (role == nullptr) {
    complain(place, "unknown speaker", {}, "human, gpt, system, observation, function_call");
  }
  if (tag != "function_call") {
    return message(role, value);
  }
  Json call = Json::object();
  call["type"] = "function";
  call["function"] = parse_record(value, place, size_t{1} << 24);
  Json result = message(role, "");
  result["tool_calls"] = Json::array({std::move(call)});
  return result;
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
              {.where = kWhere,
               .what = "unknown data.layout",
               .got = "'" + name + "'",
               .allowed = "auto, messages, prompt_completion, alpaca, sharegpt, text"});
}

std::optional<Layout> detect_layout(const Json& record) {
  if (!record.is_object()) {
    return std::nullopt;
  }
  if (column(record, "messages") != nullptr) {
    return Layout::Messages;
  }
  if (const Json* turns = column(record, "conversations")) {
    const bool roles = turns->is_array() && !turns->empty() && turns->front().is_object() &&
                       column(turns->front(), "role") != nullptr;
    return roles ? Layout::Messages : Layout::ShareGpt;
  }
  if (column(record, "prompt") != nullptr && column(record, "completion") != nullptr) {
    return Layout::PromptCompletion;
  }
  if (column(record, "instruction") != nullptr && column(record, "output") != nullptr) {
    return Layout::Alpaca;
  }
  if (column(record, "text") != nullptr) {
    return Layout::Text;
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
    throw Error(error.kind(), {.where = kWhere, .what = without_quotes(error.what())});
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
    case Layout::Text:
      break;
  }
  return text_record({}, text_column(json, "text", origin), Record::Kind::Text, origin);
}

}  // namespace kamerton::data
