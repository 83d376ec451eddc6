// SPDX-License-Identifier: Apache-2.0
// Records that compare or judge answers, against TRL.
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>

#include "kamerton/data/inspect.h"
#include "kamerton/data/stream.h"

#include "layout.h"
#include "preparer.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using core::Json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Record record_of(const std::string& text) {
  const Json json = parse_record(text, "f:1", 1 << 20);
  return to_record(json, detect_layout(json).value(), true, "f:1");
}

std::string refused(const std::string& text) {
  return error_of(ErrorKind::Data, [&] {
    const Json json = parse_record(text, "f:3", 1 << 20);
    to_record(json, detect_layout(json).value_or(Layout::Preference), true, "f:3");
  });
}

TEST(Preference, IsDetectedByColumns) {
  const std::vector<std::pair<const char*, Layout>> known = {
      {R"({"prompt":"p","chosen":"a","rejected":"b"})", Layout::Preference},
      {R"({"messages":[],"chosen":"a","rejected":"b"})", Layout::Preference},
      {R"({"prompt":"p","completion":"a","label":true})", Layout::UnpairedPreference},
      {R"({"prompt":"p","completion":"a","label":"False"})", Layout::UnpairedPreference},
      {R"({"prompt":"p","completion":"a","label":"sports"})", Layout::PromptCompletion},
      {R"({"prompt":"p","completion":"a","label":3})", Layout::PromptCompletion}};
  for (const auto& [text, layout] : known) {
    EXPECT_EQ(detect_layout(parse_record(text, "f", 1 << 20)), layout) << text;
  }
}

TEST(Preference, AnExplicitPromptStandsBeforeBothAnswers) {
  const Record text = record_of(R"({"prompt":"p","chosen":" a","rejected":" b"})");
  EXPECT_EQ(text.prompt + "|" + text.completion, "p| a");
  EXPECT_EQ(text.rejected->prompt + "|" + text.rejected->completion, "p| b");
  const Record chat = record_of(
      R"({"prompt":[{"role":"user","content":"q"}],"chosen":[{"role":"assistant","content":"a"}],
          "rejected":{"role":"assistant","content":"b"},"tools":[{"x":1}]})");
  EXPECT_EQ(chat.prompt_messages, 1);
  EXPECT_EQ((*chat.messages)[1]["content"], "a");
  EXPECT_EQ((*chat.rejected->messages)[1]["content"], "b");
  EXPECT_EQ(chat.rejected->template_variables->dump(), R"({"tools":[{"x":1}]})");
}

TEST(Preference, AnImplicitPromptIsTheCommonBeginning) {
  const auto parts = [](const char* text) {
    const Record record = record_of(text);
    return record.prompt + "|" + record.completion + "|" + record.rejected->completion;
  };
  // trl.data_utils.extract_prompt gives these.
  EXPECT_EQ(parts(R"({"chosen":"The sky is blue.","rejected":"The sky is green."})"),
            "The sky is| blue.| green.");
  EXPECT_EQ(parts(R"({"chosen":"abc","rejected":"abd"})"), "ab|c|d");
  EXPECT_EQ(parts(R"({"chosen":"abc","rejected":"abcd"})"), "ab|c|cd");
  EXPECT_EQ(parts("{\"chosen\":\"x\u00e9a\",\"rejected\":\"x\u00e8a\"}"), "x|\u00e9a|\u00e8a");
  const Record chat = record_of(
      R"({"prompt":"q","chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],
          "rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]})");
  EXPECT_EQ(chat.prompt_messages, 1);
  EXPECT_EQ((*chat.rejected->messages)[1]["content"], "b");
}

TEST(Preference, ShareGptTurnsMayStandBeforeTheAnswers) {
  const Record record = record_of(
      R"({"system":"S","conversations":[{"from":"human","value":"q"}],
          "chosen":{"from":"gpt","value":"a"},"rejected":{"from":"gpt","value":"b"}})");
  EXPECT_EQ(record.prompt_messages, 2);
  EXPECT_EQ(record.messages->dump(),
            R"([{"role":"system","content":"S"},{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"a"}])");
}

TEST(Preference, BadRecordsAreRefusedWithPlaceAndWithoutTheirText) {
  for (const char* text :
       {R"({"prompt":"p","chosen":"secret","rejected":"secret"})",
        R"({"chosen":"secret","rejected":"other"})",
        R"({"prompt":"p","chosen":"secret"})",
        R"({"prompt":"p","chosen":"secret","rejected":[{"role":"assistant","content":"b"}]})",
        R"({"prompt":"p","chosen":["secret"],"rejected":["b"]})",
        R"({"prompt":"p","chosen":7,"rejected":8})",
        R"({"prompt":[],"chosen":[{"role":"assistant","content":"secret"}],)"
        R"("rejected":[{"role":"assistant","content":"b"}]})",
        R"({"conversations":[{"from":"who","value":"secret"}],"chosen":{"from":"gpt","value":"a"},)"
        R"("rejected":{"from":"gpt","value":"b"}})"}) {
    EXPECT_THAT(refused(text), AllOf(HasSubstr("f:3"), Not(HasSubstr("secret")))) << text;
  }
  EXPECT_THAT(error_of(ErrorKind::Data,
                       [&] {
                         to_record(parse_record(
                                       R"({"prompt":"p","completion":"c","label":"x"})", "f:3", 99),
                                   Layout::UnpairedPreference,
                                   true,
                                   "f:3");
                       }),
              HasSubstr("'label'"));
}

TEST(Preference, TokensAndMasksAreThoseOfTrl) {
  const auto shared = shared_folder();
  if (!shared || !std::filesystem::exists(*shared / "fixtures/preference/dpo.json")) {
    GTEST_SKIP() << "KAMERTON_SHARED has no fixtures/preference/dpo.json";
  }
  std::ifstream file(*shared / "fixtures/preference/dpo.json");
  std::ostringstream text;
  text << file.rdbuf();
  const text::TokenizerBundle bundle = text::load_bundle(*shared / "models/stories260K");
  const Preparer preparer(bundle, TrainOn::Completion, 0);
  const Json all = core::parse_json(text.str(), "dpo.json");
  ASSERT_GE(all["examples"].size(), 6);
  for (const Json& example : all["examples"]) {
    const Record record = to_record(example, Layout::Preference, true, "f:1");
    const TokenizedPair pair = preparer.prepare_preference(record);
    for (const auto& [one, name] :
         {std::pair(&pair.chosen, "chosen_ids"), std::pair(&pair.rejected, "rejected_ids")}) {
      auto expected = example["prompt_ids"].get<std::vector<int32_t>>();
      std::vector<uint8_t> mask(expected.size(), 0);
      const auto answer = example[name].get<std::vector<int32_t>>();
      expected.insert(expected.end(), answer.begin(), answer.end());
      mask.resize(expected.size(), 1);
      EXPECT_EQ(one->ids, expected) << example["prompt"];
      EXPECT_EQ(one->trained, mask) << example["prompt"];
    }
  }
}

TEST(Preference, DataSetsHoldBothAnswersAndShowThem) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  DataConfig config;
  config.train = {scratch.write("a.jsonl", R"({"prompt":"ab","chosen":"c","rejected":"de"})")};
  const Dataset set = open_train(config, bundle, 4096);
  const Example example = set.get(0);
  EXPECT_THAT(example.tokens, ElementsAre('a', 'b', 'c', 256));
  EXPECT_THAT(example.targets, ElementsAre(kNoTarget, 'c', 256, kNoTarget));
  ASSERT_NE(example.rejected, nullptr);
  EXPECT_THAT(example.rejected->tokens, ElementsAre('a', 'b', 'd', 'e', 256));
  EXPECT_THAT(example.rejected->targets, ElementsAre(kNoTarget, 'd', 'e', 256, kNoTarget));
  EXPECT_THAT(show_example(set, 0, {.color = false}),
              AllOf(HasSubstr("chosen: ab[[c</s>]]"), HasSubstr("rejected: ab[[de</s>]]")));
  EXPECT_EQ(set.summary().layout, "preference");
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { TrainStream(config, 1, bundle, 0, 1, 4096); }),
              AllOf(HasSubstr("layout preference"), HasSubstr("completion: chosen")));
  config.columns.completion = "chosen";
  config.layout = "prompt_completion";
  TrainStream imitating(config, 1, bundle, 0, 1, 4096);
  EXPECT_EQ(imitating.next().front().target_count, 2);
}

TEST(Preference, JudgedAnswersKeepTheirLabel) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  DataConfig config;
  config.train = {scratch.write("a.csv", "prompt,completion,label\nab,c,true\nab,d,False\n")};
  const Dataset set = open_train(config, bundle, 4096);
  EXPECT_EQ(set.get(0).label, true);
  EXPECT_EQ(set.get(1).label, false);
  EXPECT_THAT(show_example(set, 1, {.color = false}), HasSubstr("label: false"));
  config.train_on = "all";
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { open_train(config, bundle, 4096); }),
              HasSubstr("all for unpaired_preference"));
}

TEST(Preference, AJudgedAnswerStandsBesideThatOfARecordHalfTheSetAway) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  DataConfig config;
  config.train = {scratch.write(
      "a.csv", "prompt,completion,label\nab,c,true\nab,d,false\nxy,ef,true\nxy,g,false\n")};
  config.answers = Answers::Judged;
  const Dataset set = open_train(config, bundle, 4096);
  const Example example = set.get(1);  // its partner is record 3
  ASSERT_NE(example.mismatched, nullptr);
  const Example alone = set.get(3);
  std::vector<int32_t> expected(example.tokens.begin(), example.tokens.end() - 2);
  expected.insert(expected.end(), alone.tokens.end() - 2, alone.tokens.end());
  EXPECT_EQ(example.mismatched->tokens, expected);  // "ab", then "g" and the end token
  EXPECT_EQ(example.mismatched->target_count(), 2);
  Batch batch;
  batch.append(example, 7);
  EXPECT_EQ(batch.target_count, example.target_count());
  EXPECT_THAT(batch.marks, ElementsAre(0.0F, 0.0F));
  EXPECT_THAT(batch.source_indices, ElementsAre(1, 1));
}

TEST(Preference, AMarginComesWithItsPair) {
  const Record record = record_of(R"({"prompt":"p","chosen":" a","rejected":" b","margin":0.5})");
  EXPECT_EQ(record.margin, 0.5);
  EXPECT_THAT(refused(R"({"prompt":"p","chosen":" a","rejected":" b","margin":"much"})"),
              HasSubstr("margin"));
}

TEST(Preference, APromptAloneIsAnExampleForObjectivesThatAnswer) {
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  DataConfig config;
  config.train = {scratch.write("a.jsonl",
                                R"({"prompt":"ab","answer":"c"})"
                                "\n")};
  config.answers = Answers::Asked;
  const Dataset set = open_train(config, bundle, 4096);
  EXPECT_EQ(set.summary().layout, "prompt");
  EXPECT_EQ(set.get(0).target_count(), 0);
  EXPECT_EQ(set.get(0).tokens, bundle.tokenizer.encode("ab", true));
  EXPECT_EQ(set.question(0).reference, "c");
  config.answers = Answers::One;
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { TrainStream(config, 1, bundle, 0, 1, 4096); }),
              HasSubstr("no answers"));
}

TEST(Preference, TheSharedSampleIsRead) {
  const auto shared = shared_folder();
  if (!shared || !std::filesystem::exists(*shared / "data/preference/dpo_en_demo.json")) {
    GTEST_SKIP() << "KAMERTON_SHARED has no data/preference";
  }
  const text::TokenizerBundle bundle = byte_bundle(kMarkedTemplate);
  DataConfig config;
  config.train = {(*shared / "data/preference/dpo_en_demo.json").string()};
  config.sequence_length = 1 << 16;  // a token a byte
  const Dataset set = open_train(config, bundle, 1 << 16);
  EXPECT_EQ(set.size(), 300);
  EXPECT_EQ(set.summary().layout, "preference");
  EXPECT_NE(set.get(7).rejected, nullptr);
}

}  // namespace
}  // namespace kamerton::data
