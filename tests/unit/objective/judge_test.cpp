// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/judge.h"

#include "support/expect_error.h"
#include "support/policy.h"
#include "support/temporary_folder.h"

namespace kamerton::objective {
namespace {

Answer saying(const std::string& text, const std::string& reference = {}) {
  Answer answer;
  answer.text = text;
  answer.reference = reference;
  return answer;
}

RewardConfig of_kind(const std::string& kind) {
  RewardConfig config;
  config.kind = kind;
  return config;
}

std::vector<double> rewards(const RewardConfig& config, const std::vector<Answer>& answers) {
  return make_rule(config)->rewards(answers);
}

using Rewards = std::vector<double>;

TEST(Rule, MatchFindsAnExpressionAnywhereInUnicodeText) {
  RewardConfig config = of_kind("match");
  config.pattern = R"(\bma\p{L}a\b)";
  EXPECT_EQ(rewards(config,
                    {saying("za ma\xc5\x82"
                            "a!"),
                     saying("mama"),
                     saying("maa"),
                     saying("")}),
            (Rewards{1, 1, 0, 0}));
}

TEST(Rule, MatchTakesAnExpressionThatMatchesNothingAtAll) {
  RewardConfig config = of_kind("match");
  config.pattern = "^$";
  EXPECT_EQ(rewards(config, {saying(""), saying("a")}), (Rewards{1, 0}));
}

TEST(Rule, EqualsComparesWithTheRecordsAnswer) {
  RewardConfig config = of_kind("equals");
  EXPECT_EQ(rewards(config, {saying(" 42\n", "42"), saying("4 2", "42"), saying("", "42")}),
            (Rewards{1, 0, 0}));
}

TEST(Rule, JsonKeysNeedsAWholeObject) {
  RewardConfig config = of_kind("json_keys");
  config.keys = {"a", "b"};
  EXPECT_EQ(rewards(config,
                    {saying(R"({"b": 1, "a": null, "c": 2})"),
                     saying(R"({"a": 1})"),
                     saying(R"({"a": 1, "b": 2} indeed)"),
                     saying(R"(["a", "b"])"),
                     saying("{")}),
            (Rewards{1, 0, 0, 0, 0}));
}

TEST(Rule, JsonSchemaAcceptsWhatItDescribes) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "schema.json", R"({
    "type": "object",
    "required": ["name", "price"],
    "properties": {"name": {"type": "string", "minLength": 2}, "price": {"type": "number", "minimum": 0}},
    "additionalProperties": false})");
  RewardConfig config = of_kind("json_schema");
  config.schema = (folder / "schema.json").string();
  EXPECT_EQ(rewards(config,
                    {saying(R"({"name": "tea", "price": 2.5})"),
                     saying(R"({"name": "t", "price": 2.5})"),
                     saying(R"({"name": "tea", "price": -1})"),
                     saying(R"({"name": "tea", "price": 1, "more": 1})"),
                     saying("tea")}),
            (Rewards{1, 0, 0, 0, 0}));
}

TEST(Rule, WhatIsNoPatternOrSchemaIsAConfigurationError) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "schema.json", R"({"type": 3})");
  RewardConfig pattern = of_kind("match");
  pattern.pattern = "(";
  test::expect_error(core::ErrorKind::Config, {"pattern"}, [&] { make_rule(pattern); });
  RewardConfig schema = of_kind("json_schema");
  schema.schema = (folder / "schema.json").string();
  test::expect_error(core::ErrorKind::Config, {"schema.json"}, [&] { make_rule(schema); });
  schema.schema = (folder / "nowhere.json").string();
  test::expect_error(core::ErrorKind::Config, {"nowhere.json"}, [&] { make_rule(schema); });
}

TEST(ProgramJudge, RewardsComeInAnyOrder) {
  RewardConfig config = of_kind("program");
  // Reverses the lines, and gives each the number that it was called by.
  config.command = {"sh",
                    "-c",
                    "while read a && read b; do for l in \"$b\" \"$a\"; do i=${l#*\\\"id\\\":}; "
                    "i=${i%%,*}; echo \"{\\\"id\\\": $i, \\\"reward\\\": $i.5}\"; done; done"};
  const auto judge = make_program_judge(config, comm::Group());
  std::vector<Answer> answers(2);
  answers[0].id = 3;
  answers[1].id = 8;
  for (int step = 0; step < 3; ++step) {  // one process for the whole run
    EXPECT_EQ(judge->rewards(answers), (Rewards{3.5, 8.5}));
  }
}

TEST(ModelJudge, NeedsAScoreHead) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  const auto model = test::make_decoder();
  test::expect_error(core::ErrorKind::Config, {"score head"}, [&] { make_model_judge(*model, 1); });
}

}  // namespace
}  // namespace kamerton::objective
