// SPDX-License-Identifier: Apache-2.0
#include "record_text.h"

#include <nlohmann/json.hpp>

namespace kamerton::data {
namespace {

using core::Json;

Speaker speaker_of(const Json& message) {
  const std::string role = message.value("role", std::string());
  return role == "assistant" ? Speaker::Assistant
         : role == "user"    ? Speaker::User
         : role == "system"  ? Speaker::System
                             : Speaker::Other;
}

template <class Visit>
void visit_content(const Json& message, const Visit& visit) {
  const Json* content = core::json_find(message, "content");
  if (content == nullptr) {
    return;
  }
  if (content->is_string()) {
    visit(std::string_view(content->get_ref<const std::string&>()));
  } else if (content->is_array()) {
    for (const Json& part : *content) {
      const Json* text = part.is_object() ? core::json_find(part, "text") : nullptr;
      if (text != nullptr && text->is_string()) {
        visit(std::string_view(text->get_ref<const std::string&>()));
      }
    }
  }
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

bool says_nothing(const Json& message) {
  for (const char* other : {"tool_calls", "reasoning_content", "thinking"}) {
    if (core::json_find(message, other) != nullptr) {
      return false;
    }
  }
  bool blank = true;
  visit_content(message, [&](std::string_view text) { blank = blank && is_blank(text); });
  return blank;
}

}  // namespace

void visit_texts(const Record& record, const VisitText& visit) {
  if (record.kind == Record::Kind::Chat) {
    for (const Json& message : *record.messages) {
      const Speaker speaker = speaker_of(message);
      visit_content(message, [&](std::string_view text) { visit(speaker, text); });
    }
    return;
  }
  if (record.kind == Record::Kind::Pair) {
    visit(Speaker::User, record.prompt);
    visit(Speaker::Assistant, record.completion);
    return;
  }
  visit(Speaker::Document, record.completion);
}

bool has_empty_answer(const Record& record) {
  if (record.kind == Record::Kind::Chat) {
    for (const Json& message : *record.messages) {
      if (speaker_of(message) == Speaker::Assistant && says_nothing(message)) {
        return true;
      }
    }
    return false;
  }
  return is_blank(record.completion);
}

std::string comparable_text(const Record& record) {
  std::string result;
  visit_texts(record, [&](Speaker speaker, std::string_view text) {
    if (speaker != Speaker::System) {
      result.append(text).append("\n");
    }
  });
  return result;
}

}  // namespace kamerton::data
