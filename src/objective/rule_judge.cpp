// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cctype>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/objective/judge.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/text/matcher.h"

#include "json_schema.h"

namespace kamerton::objective {
namespace {

using core::Error;
using core::ErrorKind;

constexpr uint64_t kSchemaBytes = uint64_t{16} << 20;

/// A yes or no by one answer.
template <class Test>
class Rule final : public Judge {
 public:
  explicit Rule(Test test) : test_(std::move(test)) {}
  std::vector<double> rewards(const std::vector<Answer>& answers) override {
    std::vector<double> result;
    result.reserve(answers.size());
    for (const Answer& answer : answers) {
      result.push_back(test_(answer) ? 1.0 : 0.0);
    }
    return result;
  }

 private:
  Test test_;
};

template <class Test>
std::unique_ptr<Judge> rule(Test test) {
  return std::make_unique<Rule<Test>>(std::move(test));
}

std::string trimmed(std::string_view text) {
  const auto blank = [](unsigned char c) { return std::isspace(c) != 0; };
  const auto begin = std::find_if_not(text.begin(), text.end(), blank);
  const auto end = std::find_if_not(text.rbegin(), std::make_reverse_iterator(begin), blank).base();
  return {begin, end};
}

/// Whatever the answer is as JSON; discarded when it is none.
core::Json parsed(const std::string& text) {
  return core::Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

bool has_keys(const core::Json& json, const std::vector<std::string>& keys) {
  return json.is_object() && std::all_of(keys.begin(), keys.end(), [&](const std::string& key) {
           return json.contains(key);
         });
}

/// What a file or a pattern is refused for concerns the configuration.
template <class Work>
auto as_config_error(const std::string& key, Work work) {
  try {
    return work();
  } catch (const Error& error) {
    throw Error(ErrorKind::Config,
                {.where = "objective.rewards", .what = key + ": " + error.what()});
  }
}

}  // namespace

std::unique_ptr<Judge> make_rule(const RewardConfig& config) {
  if (config.kind == "match") {
    auto matcher = std::make_shared<text::Matcher>(as_config_error(
        "pattern", [&] { return text::Matcher(config.pattern, "objective.rewards"); }));
    return rule([matcher](const Answer& answer) { return matcher->found_in(answer.text); });
  }
  if (config.kind == "equals") {
    return rule(
        [](const Answer& answer) { return trimmed(answer.text) == trimmed(answer.reference); });
  }
  if (config.kind == "json_keys") {
    return rule(
        [keys = config.keys](const Answer& answer) { return has_keys(parsed(answer.text), keys); });
  }
  if (config.kind == "json_schema") {
    auto schema = std::make_shared<JsonSchema>(as_config_error("schema", [&] {
      return JsonSchema(
          core::parse_json(storage::posix_filesystem().read_file(config.schema, kSchemaBytes),
                           config.schema),
          config.schema);
    }));
    return rule([schema](const Answer& answer) {
      const core::Json json = parsed(answer.text);
      return !json.is_discarded() && schema->accepts(json);
    });
  }
  throw Error(ErrorKind::Internal,
              {.where = "objective.rewards", .what = "no such rule", .got = config.kind});
}

}  // namespace kamerton::objective
