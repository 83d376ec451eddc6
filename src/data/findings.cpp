// SPDX-License-Identifier: Apache-2.0
#include "findings.h"

#include <algorithm>

#include <fmt/format.h>

namespace kamerton::data {
namespace {

constexpr double kNever = 2.0;

struct RuleText {
  const char* name;
  Severity severity;
  double error_share;  ///< of the records looked at: from here on a warning is an error
  const char* what;
  const char* remedy;
};

constexpr RuleText kTexts[kRules] = {
    {"bad_record",
     Severity::Warning,
     kNever,
     "the record cannot be read",
     "mend the file, or data.on_bad_record: skip"},
    {"template",
     Severity::Error,
     kNever,
     "the chat template refuses the record, or which tokens are the assistant's cannot be proved",
     "a template with {% generation %} marks or one whose text only grows; data.train_on: "
     "completion or all"},
    {"template_drops",
     Severity::Warning,
     kNever,
     "the chat template leaves a message's text out of what the model sees",
     "the model's own template, or another role for the message"},
    {"tools_dropped",
     Severity::Warning,
     kNever,
     "the chat template leaves the record's tools or its calls of tools out of what the model sees",
     "a chat template that knows tools, or records without them"},
    {"template_form",
     Severity::Note,
     kNever,
     "a property of the chat template that conversations of some forms suffer from",
     "the model's own template, or conversations without that form"},
    {"no_target",
     Severity::Warning,
     kNever,
     "no token of the example is trained",
     "look with `kamerton data show`; data.train_on, a larger data.sequence_length, or "
     "data.on_no_target: skip"},
    {"few_targets",
     Severity::Warning,
     kNever,
     "less than one token in a hundred is trained",
     "look with `kamerton data show`; shorter prompts, or data.train_on"},
    {"end_never_trained",
     Severity::Warning,
     kNever,
     "no example trains an end token: the model would not learn to stop",
     "a chat template that ends turns with the model's end token, a larger data.sequence_length, "
     "or data.require_end_token: false"},
    {"end_rarely_trained",
     Severity::Warning,
     kNever,
     "fewer than half of the examples train an end token",
     "a larger data.sequence_length, or shorter examples"},
    {"double_bos",
     Severity::Error,
     kNever,
     "the example begins with two begin-of-text tokens",
     "take the begin-of-text token out of the data or the chat template: the tokenizer adds one"},
    {"answer_cut",
     Severity::Warning,
     0.2,
     "data.sequence_length cuts trained tokens off",
     "a larger data.sequence_length, data.too_long: skip, or shorter examples"},
    {"text_cut",
     Severity::Warning,
     kNever,
     "text beyond data.sequence_length is never trained",
     "data.text_windows: true, or a larger data.sequence_length"},
    {"empty_answer",
     Severity::Error,
     kNever,
     "an answer of the record says nothing",
     "take the record out, or write its answer"},
    {"one_token_answer",
     Severity::Warning,
     kNever,
     "at most one token is trained besides the end token",
     "fine for labels; else look with `kamerton data show`"},
    {"one_label",
     Severity::Warning,
     kNever,
     "all answers that were looked at have the same label: nothing tells good from bad",
     "answers of both labels"},
    {"leak_exact",
     Severity::Error,
     kNever,
     "a held-out record is in the training files, too",
     "take it out of one of them"},
    {"leak_near",
     Severity::Warning,
     0.01,
     "a held-out record is nearly one of the training files",
     "take it out of one of them"},
    {"duplicate_exact",
     Severity::Warning,
     0.5,
     "the record is in the training files twice",
     "take it out once, unless its weight is meant"},
    {"duplicate_near",
     Severity::Warning,
     kNever,
     "the record is nearly another one",
     "keep one of them"},
    {"replacement_char",
     Severity::Warning,
     0.01,
     "U+FFFD in the text: an earlier program could not read its encoding",
     "export the data again as UTF-8"},
    {"mojibake",
     Severity::Warning,
     0.01,
     "UTF-8 that was read as another encoding and written again",
     "export the data again as UTF-8, or convert it back once"},
    {"control_char",
     Severity::Warning,
     0.05,
     "control characters in the text",
     "take them out, unless the model shall learn them"},
    {"special_marker",
     Severity::Error,
     kNever,
     "a message holds the text of a special token, which becomes a real control token",
     "take the marker out of the text, or write it otherwise"},
    {"marker_in_document",
     Severity::Warning,
     kNever,
     "a document holds the text of a special token, which becomes a real control token",
     "fine for document ends that are meant; else take the marker out"},
    {"foreign_marker",
     Severity::Warning,
     kNever,
     "a message holds another chat template's markers, which would be trained as plain text",
     "split the conversation into messages, or take the markers out"},
    {"email", Severity::Warning, kNever, "an e-mail address", "kamerton data redact"},
    {"phone", Severity::Warning, kNever, "a telephone number", "kamerton data redact"},
    {"pesel",
     Severity::Error,
     kNever,
     "a PESEL number with the right check digit",
     "kamerton data redact"},
    {"iban",
     Severity::Error,
     kNever,
     "an IBAN with the right check digits",
     "kamerton data redact"},
    {"card",
     Severity::Error,
     kNever,
     "a payment card number with the right check digit",
     "kamerton data redact"},
};

}  // namespace

void Tally::keep(Seen& seen, Place place) {
  const auto at = std::upper_bound(
      seen.first.begin(), seen.first.end(), place, [](const Place& a, const Place& b) {
        return a.record < b.record;
      });
  if (seen.first.size() == kPlaces && at == seen.first.end()) {
    return;
  }
  seen.first.insert(at, std::move(place));
  if (seen.first.size() > kPlaces) {
    seen.first.pop_back();
  }
}

void Tally::add(Rule rule, int64_t record, std::string remark, int64_t count) {
  Seen& seen = seen_[static_cast<size_t>(rule)];
  seen.count += count;
  keep(seen, {record, std::move(remark)});
}

void Tally::merge(const Tally& other) {
  for (size_t i = 0; i < kRules; ++i) {
    seen_[i].count += other.seen_[i].count;
    for (const Place& place : other.seen_[i].first) {
      keep(seen_[i], place);
    }
  }
}

std::vector<Finding> Tally::findings(const std::function<std::string(int64_t)>& place,
                                     const std::function<int64_t(Rule)>& of,
                                     const std::vector<Rule>& raise) const {
  std::vector<Finding> result;
  for (size_t i = 0; i < kRules; ++i) {
    const Seen& seen = seen_[i];
    if (seen.count == 0) {
      continue;
    }
    const RuleText& text = kTexts[i];
    const auto rule = static_cast<Rule>(i);
    Finding finding{.rule = text.name,
                    .severity = text.severity,
                    .what = text.what,
                    .remedy = text.remedy,
                    .count = seen.count,
                    .of = of(rule),
                    .places = {}};
    const auto share =
        static_cast<double>(seen.count) / static_cast<double>(std::max<int64_t>(finding.of, 1));
    if (share >= text.error_share || std::count(raise.begin(), raise.end(), rule) > 0) {
      finding.severity = Severity::Error;
    }
    for (const Place& first : seen.first) {
      finding.places.push_back(first.record < 0
                                   ? first.remark
                                   : place(first.record) + (first.remark.empty() ? "" : " ") +
                                         first.remark);
    }
    result.push_back(std::move(finding));
  }
  std::stable_sort(result.begin(), result.end(), [](const Finding& a, const Finding& b) {
    return a.severity > b.severity;
  });
  return result;
}

int64_t VerifyReport::count(Severity severity) const {
  return std::count_if(findings.begin(), findings.end(), [&](const Finding& finding) {
    return finding.severity == severity;
  });
}

std::string VerifyReport::text() const {
  const auto word = [](Severity severity) {
    return severity == Severity::Error     ? "error"
           : severity == Severity::Warning ? "warning"
                                           : "note";
  };
  std::string out = header + (header.empty() ? "" : "\n\n");
  for (const Finding& finding : findings) {
    out += fmt::format("{}: {}: {}\n", word(finding.severity), finding.rule, finding.what);
    for (const std::string& place : finding.places) {
      out += "  " + place + "\n";
    }
    if (finding.count > static_cast<int64_t>(finding.places.size()) && !finding.places.empty()) {
      out += fmt::format("  ... {} in all\n", finding.count);
    }
    out += fmt::format("  remedy: {}\n\n", finding.remedy);
  }
  out +=
      fmt::format("{:<20} {:<8} {:>9} {:>8}  {}\n", "rule", "level", "records", "share", "first");
  for (const Finding& finding : findings) {
    const double share = 100.0 * static_cast<double>(finding.count) /
                         static_cast<double>(std::max<int64_t>(finding.of, 1));
    out += fmt::format("{:<20} {:<8} {:>9} {:>6.2f} %  {}\n",
                       finding.rule,
                       word(finding.severity),
                       finding.count,
                       share,
                       finding.places.empty() ? "" : finding.places.front());
  }
  return out + fmt::format("{} errors, {} warnings in {} training and {} held-out records\n",
                           count(Severity::Error),
                           count(Severity::Warning),
                           train_records,
                           eval_records);
}

}  // namespace kamerton::data
