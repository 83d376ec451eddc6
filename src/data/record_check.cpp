// SPDX-License-Identifier: Apache-2.0
#include "record_check.h"

#include <algorithm>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/text/bundle.h"

#include "impl_access.h"
#include "personal_data.h"
#include "record_text.h"
#include "text_damage.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

/// The fault alone: without the place, which is said anyway, and without hints.
std::string fault_of(const Error& error, const std::string& origin) {
  std::string text = error.what();
  const size_t at = text.find(origin + ": ");
  text = at == std::string::npos ? text : text.substr(at + origin.size() + 2);
  return "(" + text.substr(0, std::min(text.find("; try "), text.find("; allowed "))) + ")";
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpaces);
  return first == std::string_view::npos
             ? std::string_view()
             : text.substr(first, text.find_last_not_of(kSpaces) - first + 1);
}

bool has_tools(const core::Json& variables) {
  const core::Json* tools = core::json_find(variables, "tools");
  return tools != nullptr && !tools->empty();
}

core::Json without_tools(core::Json variables) {
  variables.erase("tools");
  return variables;
}

/// "name" of {"type": "function", "function": {"name": ...}}, or of the function itself.
std::string call_name(const core::Json& call) {
  const core::Json* inner = call.is_object() ? core::json_find(call, "function") : nullptr;
  const core::Json& function = inner != nullptr ? *inner : call;
  const core::Json* name = function.is_object() ? core::json_find(function, "name") : nullptr;
  return name != nullptr && name->is_string() ? name->get<std::string>() : std::string();
}

/// Whether a message calls a function whose name is nowhere in the text.
bool drops_calls(const core::Json& messages, const std::string& rendered) {
  for (const core::Json& message : messages) {
    const core::Json* calls = core::json_find(message, "tool_calls");
    if (calls == nullptr || !calls->is_array()) {
      continue;
    }
    for (const core::Json& call : *calls) {
      if (rendered.find(call_name(call)) == std::string::npos) {
        return true;
      }
    }
  }
  return false;
}

constexpr std::pair<Personal, Rule> kPersonalRules[] = {{Personal::Email, Rule::Email},
                                                        {Personal::Phone, Rule::Phone},
                                                        {Personal::Pesel, Rule::Pesel},
                                                        {Personal::Iban, Rule::Iban},
                                                        {Personal::Card, Rule::Card}};

}  // namespace

void RecordSums::merge(const RecordSums& other) {
  records += other.records;
  prepared += other.prepared;
  tokens += other.tokens;
  targets += other.targets;
  with_targets += other.with_targets;
  with_end += other.with_end;
  good += other.good;
  bad += other.bad;
}

bool RecordCheck::is_end(int32_t id) const {
  const auto& stops = data_->bundle.stop_ids;
  return id == data_->bundle.eos.value_or(kNoTarget) ||
         std::count(stops.begin(), stops.end(), id) > 0;
}

std::optional<Record> RecordCheck::check(
    int64_t index, int64_t number, bool closely, Tally& tally, RecordSums& sums) const {
  ++sums.records;
  const std::string origin = data_->sources.origin(index);
  std::optional<Record> record;
  try {
    record = data_->sources.record(index);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data) {
      throw;
    }
    tally.add(Rule::BadRecord, number, fault_of(error, origin));
    return std::nullopt;
  }
  check_texts(*record, number, tally);
  sums.good += record->label == true ? 1 : 0;
  sums.bad += record->label == false ? 1 : 0;
  if (data_->has_own_tokens()) {  // nothing is trained that a mask or an end could be missing of
    ++sums.prepared;
    return record;
  }
  try {
    check_tokens(*record, index, number, tally, sums);
    if (closely && record->kind == Record::Kind::Chat && data_->bundle.chat_template) {
      check_rendering(*record, number, tally);
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data) {
      throw;
    }
    tally.add(Rule::Template, number, fault_of(error, origin));
  }
  return record;
}

void RecordCheck::check_texts(const Record& record, int64_t number, Tally& tally) const {
  TextDamage damage;
  MarkersSeen markers;
  bool personal[kPersonalKinds] = {};
  const std::string& end = data_->bundle.eos_text;
  const auto look = [&](Speaker, std::string_view text) {
    const TextDamage found = find_damage(text);
    damage.replacement |= found.replacement;
    damage.mojibake |= found.mojibake;
    damage.control |= found.control;
    for (const PersonalMatch& match : find_personal(text)) {
      personal[static_cast<size_t>(match.kind)] = true;
    }
    const bool ended = record.kind != Record::Kind::Chat && !end.empty() && text.ends_with(end);
    const MarkersSeen seen = markers_.find(text.substr(0, text.size() - (ended ? end.size() : 0)));
    markers.special |= seen.special;
    markers.foreign |= seen.foreign;
  };
  visit_texts(record, look);
  if (record.rejected) {
    visit_texts(*record.rejected, look);
  }
  const bool tokens = record.kind == Record::Kind::Tokens;  // people's words are not told apart
  const bool document = record.kind == Record::Kind::Text;
  const std::pair<bool, Rule> rules[] = {
      {damage.replacement, Rule::ReplacementChar},
      {damage.mojibake, Rule::Mojibake},
      {damage.control, Rule::ControlChar},
      {markers.special && !tokens, document ? Rule::MarkerInDocument : Rule::SpecialMarker},
      {markers.foreign && !document && !tokens, Rule::ForeignMarker},
      {!tokens && !data_->has_own_tokens() && has_empty_answer(record), Rule::EmptyAnswer}};
  for (const auto& [broken, rule] : rules) {
    if (broken) {
      tally.add(rule, number);
    }
  }
  for (const auto& [kind, rule] : kPersonalRules) {
    if (personal[static_cast<size_t>(kind)]) {
      tally.add(rule, number);
    }
  }
}

void RecordCheck::check_tokens(
    const Record& record, int64_t index, int64_t number, Tally& tally, RecordSums& sums) const {
  const Preparer& preparer = preparer_of(*data_, index);
  std::optional<TokenizedRecord> stored = data_->sources.tokenized(index);
  const Tokenized tokenized = stored            ? std::move(stored->pair.chosen)
                              : record.rejected ? preparer.prepare_preference(record).chosen
                                                : preparer.prepare(record);
  ++sums.prepared;
  const auto& ids = tokenized.ids;
  const auto bos = data_->bundle.bos;
  if (bos && ids.size() > 1 && ids[0] == *bos && ids[1] == *bos) {
    tally.add(Rule::DoubleBos, number);
  }
  check_fit(tokenized, index, number, tally, sums);
}

void RecordCheck::check_fit(const Tokenized& tokenized,
                            int64_t index,
                            int64_t number,
                            Tally& tally,
                            RecordSums& sums) const {
  const auto& ids = tokenized.ids;
  const auto limit = static_cast<size_t>(data_->sequence_length);
  const bool windows = data_->config.text_windows || packing_splits(data_->config);
  const bool long_one = ids.size() > limit && !windows;
  if (long_one && data_->config.too_long == "skip") {
    return;
  }
  if (long_one && data_->config.too_long == "error") {
    tally.add(Rule::BadRecord,
              number,
              fmt::format("({} tokens, data.sequence_length = {})", ids.size(), limit));
    return;
  }
  const size_t first =
      long_one && data_->config.too_long == "truncate_start" ? ids.size() - limit : 0;
  const size_t last = long_one ? first + limit : ids.size();
  int64_t targets = 0;
  int64_t ends = 0;
  int64_t lost = 0;
  for (size_t i = 1; i < ids.size(); ++i) {
    const bool kept = i > first && i < last;
    targets += kept && tokenized.trained[i] != 0 ? 1 : 0;
    ends += kept && tokenized.trained[i] != 0 && is_end(ids[i]) ? 1 : 0;
    lost += !kept && tokenized.trained[i] != 0 ? 1 : 0;
  }
  const bool text = is_raw_text(*data_, index);
  if (lost > 0) {
    tally.add(text ? Rule::TextCut : Rule::AnswerCut, number, fmt::format("({} tokens)", lost));
  }
  if (targets == 0) {
    tally.add(Rule::NoTarget, number);
  } else if (targets - ends <= 1 && !text) {
    tally.add(Rule::OneTokenAnswer, number);
  }
  sums.tokens += static_cast<int64_t>(last - first);
  sums.targets += targets;
  sums.with_targets += targets > 0 ? 1 : 0;
  sums.with_end += ends > 0 ? 1 : 0;
}

void RecordCheck::check_rendering(const Record& record, int64_t number, Tally& tally) const {
  text::RenderOptions options;
  options.now = data_->config.template_time;
  const core::Json& variables = *record.template_variables;
  const text::ChatTemplate& form = *data_->bundle.chat_template;
  const std::string rendered = form.render(*record.messages, options, variables).text;
  if (drops_calls(*record.messages, rendered) ||
      (has_tools(variables) &&
       form.render(*record.messages, options, without_tools(variables)).text == rendered)) {
    tally.add(Rule::ToolsDropped, number);
  }
  bool dropped = false;
  visit_texts(record, [&](Speaker, std::string_view text) {
    // Templates take earlier turns' thinking out on purpose.
    dropped = dropped || (text.find("</think>") == std::string_view::npos &&
                          rendered.find(trimmed(text)) == std::string::npos);
  });
  if (dropped) {
    tally.add(Rule::TemplateDrops, number);
  }
}

}  // namespace kamerton::data
