// SPDX-License-Identifier: Apache-2.0
// Records that compare or judge answers, read as TRL's DPO and KTO trainers do.
#include <algorithm>
#include <cmath>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "layout.h"
#include "record_parts.h"

namespace kamerton::data {

using core::Json;

namespace {

/// An answer in any of its forms: text, a list of messages, one message, ShareGPT's turns. Text
/// stays text, all else becomes a list of {role, content}.
Json answer_of(const Json& json, const char* name, const std::string& origin) {
  const Json* value = column(json, name);
  if (value == nullptr) {
    complain(origin, fmt::format("the column '{}' is missing", name), describe_columns(json));
  }
  if (value->is_string()) {
    return *value;
  }
  Json list = value->is_object() ? Json::array({*value}) : *value;
  if (list.is_array() && !list.empty() && list.front().is_object() &&
      column(list.front(), "from") != nullptr) {
    size_t number = 0;
    for (Json& turn : list) {
      turn = sharegpt_message(turn, fmt::format("{}: {}[{}]", origin, name, number++));
    }
  }
  check_messages(list, name, origin);
  return list;
}

/// LLaMA-Factory's form: the turns before the answers stand in `conversations`.
Json turns_before(const Json& json, const std::string& origin) {
  Json turns = answer_of(json, "conversations", origin);
  if (!turns.is_array()) {
    complain(origin, "the column 'conversations' holds no turns", "a string");
  }
  if (const std::string system = optional_text(json, "system", origin); !system.empty()) {
    turns.insert(turns.begin(), message("system", system));
  }
  return turns;
}

/// How far two texts agree, in whole characters.
size_t common_text(std::string_view a, std::string_view b) {
  const size_t limit = std::min(a.size(), b.size());
  size_t same = 0;
  while (same < limit && a[same] == b[same]) {
    ++same;
  }
  while (same > 0 && same < limit &&
         ((static_cast<uint8_t>(a[same]) & 0xC0) == 0x80 ||
          (static_cast<uint8_t>(b[same]) & 0xC0) == 0x80)) {
    --same;
  }
  return same;
}

/// Where both answers part, as trl.data_utils.extract_prompt: the last element is never the
/// prompt's, and a blank before the difference belongs to the answers.
size_t prompt_end(const Json& chosen, const Json& rejected) {
  if (chosen.is_string()) {
    const auto& a = chosen.get_ref<const std::string&>();
    const auto& b = rejected.get_ref<const std::string&>();
    size_t same = common_text(a, b);
    if (same == std::min(a.size(), b.size()) && same > 0) {
      do {
        --same;
      } while (same > 0 && (static_cast<uint8_t>(a[same]) & 0xC0) == 0x80);
      return same;
    }
    return same > 0 && a[same - 1] == ' ' ? same - 1 : same;
  }
  const size_t limit = std::min(chosen.size(), rejected.size());
  size_t same = 0;
  while (same < limit && chosen[same] == rejected[same]) {
    ++same;
  }
  return same == limit && same > 0 ? same - 1 : same;
}

Json part(const Json& whole, size_t begin, size_t end) {
  if (whole.is_string()) {
    return whole.get_ref<const std::string&>().substr(begin, end - begin);
  }
  const auto at = [&](size_t i) { return whole.begin() + static_cast<std::ptrdiff_t>(i); };
  return Json(Json::array_t(at(begin), at(end)));
}

Record joined(const Json& prompt,
              const Json& answer,
              const Json& variables,
              const std::string& origin) {
  if (prompt.is_string()) {
    return text_record(
        prompt.get<std::string>(), answer.get<std::string>(), Record::Kind::Pair, origin);
  }
  Json messages = prompt;
  messages.insert(messages.end(), answer.begin(), answer.end());
  return chat_record(std::move(messages), variables, static_cast<int64_t>(prompt.size()), origin);
}

/// A text prompt beside answers that are conversations repeats what they begin with (TRL's
/// maybe_extract_prompt).
bool has_own_prompt(const Json& json, bool conversation) {
  const Json* prompt = column(json, "prompt");
  return prompt != nullptr && prompt->is_string() != conversation;
}

/// The column `margin`, a number.
std::optional<double> margin_of(const Json& json, const std::string& origin) {
  const Json* margin = column(json, "margin");
  if (margin == nullptr) {
    return std::nullopt;
  }
  if (!margin->is_number() || !std::isfinite(margin->get<double>())) {
    complain(origin, "the column 'margin' is not a number", margin->type_name(), "a finite number");
  }
  return margin->get<double>();
}

}  // namespace

Record from_preference(const Json& json, const std::string& origin) {
  Json chosen = answer_of(json, "chosen", origin);
  Json rejected = answer_of(json, "rejected", origin);
  if (chosen.is_string() != rejected.is_string()) {
    complain(origin,
             "one of chosen and rejected is text, the other is not",
             {},
             "two strings, or two lists of messages");
  }
  if (chosen == rejected) {
    complain(origin, "chosen and rejected are the same: there is nothing to prefer");
  }
  Json prompt;
  if (column(json, "conversations") != nullptr) {
    prompt = turns_before(json, origin);
  } else if (has_own_prompt(json, !chosen.is_string())) {
    prompt = answer_of(json, "prompt", origin);
  } else {
    const size_t end = prompt_end(chosen, rejected);
    prompt = part(chosen, 0, end);
    chosen = part(chosen, end, chosen.is_string() ? std::string::npos : chosen.size());
    rejected = part(rejected, end, rejected.is_string() ? std::string::npos : rejected.size());
  }
  if (prompt.is_string() != chosen.is_string() || prompt.empty() ||
      (prompt.is_string() && prompt.get_ref<const std::string&>().empty())) {
    complain(origin,
             "there is no prompt: the column is missing, and chosen and rejected begin otherwise",
             describe_columns(json),
             "'prompt', or the same beginning in 'chosen' and 'rejected'");
  }
  const Json variables = template_variables(json, origin);
  Record record = joined(prompt, chosen, variables, origin);
  record.margin = margin_of(json, origin);
  record.rejected = std::make_shared<const Record>(joined(prompt, rejected, variables, origin));
  return record;
}

Record from_unpaired(const Json& json, const std::string& origin) {
  const Json* label = column(json, "label");
  const bool yes = label != nullptr && (*label == true || *label == 1 || *label == "true" ||
                                        *label == "True" || *label == "1");
  const bool no = label != nullptr && (*label == false || *label == 0 || *label == "false" ||
                                       *label == "False" || *label == "0");
  if (!yes && !no) {
    complain(origin,
             "the column 'label' does not say whether the completion is a good one",
             label == nullptr ? "nothing" : label->type_name(),
             "true or false");
  }
  Record record = from_pair(json, origin);
  record.label = yes;
  return record;
}

Record from_steps(const Json& json, const std::string& origin) {
  Record record = text_record(text_column(json, "prompt", origin), {}, Record::Kind::Pair, origin);
  const Json* steps = column(json, "completions");
  const Json* labels = column(json, "labels");
  if (steps == nullptr || labels == nullptr || !steps->is_array() || !labels->is_array() ||
      steps->empty() || steps->size() != labels->size()) {
    complain(origin,
             "'completions' and 'labels' are not two lists of one length",
             describe_columns(json),
             "the steps of an answer, and true or false for each");
  }
  for (size_t i = 0; i < steps->size(); ++i) {
    if (!(*steps)[i].is_string() || !(*labels)[i].is_boolean()) {
      complain(origin, "a step is not text, or its label not true or false");
    }
    record.steps.emplace_back((*steps)[i].get<std::string>(), (*labels)[i].get<bool>());
    record.completion += record.steps.back().first + "\n";
  }
  return record;
}

Record from_prompt(const Json& json, const std::string& origin) {
  const Json* prompt = column(json, "prompt");
  if (prompt == nullptr) {
    complain(origin, "the column 'prompt' is missing", describe_columns(json));
  }
  const Json* answer = column(json, "answer");
  std::string expected =
      answer != nullptr && answer->is_string() ? answer->get<std::string>() : std::string();
  if (prompt->is_string()) {
    return text_record(prompt->get<std::string>(), std::move(expected), Record::Kind::Pair, origin);
  }
  check_messages(*prompt, "prompt", origin);
  Record record = chat_record(
      *prompt, template_variables(json, origin), static_cast<int64_t>(prompt->size()), origin);
  record.completion = std::move(expected);
  return record;
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

}  // namespace kamerton::data
