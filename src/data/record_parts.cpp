// SPDX-License-Identifier: Apache-2.0
#include "record_parts.h"

#include <array>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "layout.h"

namespace kamerton::data {

using core::Error;
using core::ErrorKind;
using core::Json;

void complain(const std::string& origin,
              const std::string& what,
              const std::string& got,
              const std::string& allowed) {
  throw Error(
      ErrorKind::Data,
      {.where = "data.layout", .what = origin + ": " + what, .got = got, .allowed = allowed});
}

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

namespace {

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

}  // namespace

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

Json message(const char* role, std::string content) {
  Json result = Json::object();
  result["role"] = role;
  result["content"] = std::move(content);
  return result;
}

namespace {

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

}  // namespace

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

}  // namespace kamerton::data
