// SPDX-License-Identifier: Apache-2.0
#include "layout.h"

#include <gmock/gmock.h>

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using core::Json;
using ::testing::HasSubstr;
using ::testing::Not;

Record record_of(const char* text, bool chat = true) {
  const Json json = parse_record(text, "f:1", 1 << 20);
  return to_record(json, detect_layout(json).value(), chat, "f:1");
}

TEST(Layout, IsDetectedByColumns) {
  const std::vector<std::pair<const char*, Layout>> known = {
      {R"({"text":"a"})", Layout::Text},
      {R"({"prompt":"a","completion":"b"})", Layout::PromptCompletion},
      {R"({"prompt":"a","answer":"b"})", Layout::Prompt},
      {R"({"prompt":"a","completions":["b"],"labels":[true]})", Layout::Stepwise},
      {R"({"instruction":"a","output":"b"})", Layout::Alpaca},
      {R"({"instruction":"a","input":"","output":"b","text":"all"})", Layout::Alpaca},
      {R"({"messages":[],"text":"x"})", Layout::Messages},
      {R"({"conversations":[{"from":"human","value":"a"}]})", Layout::ShareGpt},
      {R"({"conversations":[{"role":"user","content":"a"}]})", Layout::Messages},
  };
  for (const auto& [text, layout] : known) {
    EXPECT_EQ(detect_layout(parse_record(text, "f", 1 << 20)), layout) << text;
  }
  for (const char* text : {R"({"prompt":"a","completion":null,"chosen":"b"})", "[]", "{}", R"({"chosen":1})", "7"}) {
    EXPECT_EQ(detect_layout(parse_record(text, "f", 1 << 20)), std::nullopt) << text;
  }
}

TEST(Layout, AlpacaBecomesAConversationOrText) {
  const char* text = R"({"instruction":"Add.","input":"1 2","output":"3","system":"S",
                         "history":[["q","a"]]})";
  const Record chat = record_of(text);
  EXPECT_EQ(chat.kind, Record::Kind::Chat);
  EXPECT_EQ(chat.messages->dump(),
            R"([{"role":"system","content":"S"},{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"a"},{"role":"user","content":"Add.\n1 2"},)"
            R"({"role":"assistant","content":"3"}])");
  const Record plain = record_of(R"({"instruction":"Add.","input":"","output":"3"})", false);
  EXPECT_EQ(plain.kind, Record::Kind::Pair);
  EXPECT_EQ(plain.prompt, "Add.\n");
  EXPECT_EQ(plain.completion, "3");
}

TEST(Layout, ShareGptSpeakersBecomeRoles) {
  const Record record = record_of(
      R"({"system":"S","conversations":[{"from":"human","value":"q"},
          {"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{}}"},
          {"from":"observation","value":"r"},{"from":"gpt","value":"a"}],"tools":"[{\"x\":1}]"})");
  EXPECT_EQ(record.messages->dump(),
            R"([{"role":"system","content":"S"},{"role":"user","content":"q"},)"
            R"({"role":"assistant","content":"","tool_calls":[{"type":"function",)"
            R"("function":{"name":"f","arguments":{}}}]},{"role":"tool","content":"r"},)"
            R"({"role":"assistant","content":"a"}])");
  EXPECT_EQ(record.template_variables->dump(), R"({"tools":[{"x":1}]})");
}

TEST(Layout, PromptAndCompletionMayBeMessages) {
  const Record record = record_of(
      R"({"prompt":[{"role":"user","content":"q"}],"completion":[{"role":"assistant","content":"a"}],
          "chat_template_kwargs":{"enable_thinking":false}})");
  EXPECT_EQ(record.prompt_messages, 1);
  EXPECT_EQ(record.messages->size(), 2);
  EXPECT_EQ(record.template_variables->dump(), R"({"enable_thinking":false})");
}

TEST(Layout, BadRecordsAreRefusedWithPlaceAndWithoutTheirText) {
  const std::vector<std::pair<const char*, Layout>> bad = {
      {R"({"text":{"secret":1}})", Layout::Text},
      {R"({"other":"secret"})", Layout::Text},
      {R"(["secret"])", Layout::Text},
      {R"({"messages":[]})", Layout::Messages},
      {R"({"messages":"secret"})", Layout::Messages},
      {R"({"messages":["secret"]})", Layout::Messages},
      {R"({"messages":[{"role":"user"}]})", Layout::Messages},
      {R"({"messages":[{"role":"user","content":{"secret":1}}]})", Layout::Messages},
      {R"({"messages":[{"role":7,"content":"secret"}]})", Layout::Messages},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":"secret"})", Layout::Messages},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":{"secret":1}})", Layout::Messages},
      {R"({"prompt":"secret"})", Layout::PromptCompletion},
      {R"({"prompt":"secret","completion":[{"role":"a","content":"b"}]})",
       Layout::PromptCompletion},
      {R"({"prompt":7,"completion":"secret"})", Layout::PromptCompletion},
      {R"({"instruction":"secret"})", Layout::Alpaca},
      {R"({"instruction":"secret","output":7})", Layout::Alpaca},
      {R"({"instruction":"x","output":"y","history":[["secret"]]})", Layout::Alpaca},
      {R"({"conversations":[{"from":"secret","value":"x"}]})", Layout::ShareGpt},
      {R"({"conversations":[{"from":"human"}]})", Layout::ShareGpt},
      {R"({"conversations":[{"from":"function_call","value":"secret"}]})", Layout::ShareGpt},
  };
  for (const auto& [text, layout] : bad) {
    const std::string message = error_of(ErrorKind::Data, [&, text = text, layout = layout] {
      to_record(parse_record(text, "f:3", 1 << 20), layout, true, "f:3");
    });
    EXPECT_THAT(message, HasSubstr("f:3")) << text;
    EXPECT_THAT(message, Not(HasSubstr("secret"))) << text;
  }
}

TEST(Layout, JsonErrorsNameThePlaceAndNotTheText) {
  for (const char* text : {"{\"text\": secret}",
                           "{\"text\": \"secret",
                           "{\"secret\":1,\"secret\":2}",
                           "{\"a\": 99999999999999999999}",
                           "{} secret",
                           "",
                           "{\"a\":\"\\ud800\"}",
                           "{\"a\":NaN}",
                           "{\"a\":\"se\ncret\"}"}) {
    const std::string message =
        error_of(ErrorKind::Data, [&] { parse_record(text, "f.jsonl:7", 1 << 20); });
    EXPECT_THAT(message, HasSubstr("f.jsonl:7:")) << text;
    EXPECT_THAT(message, Not(HasSubstr("secret"))) << text;
    EXPECT_THAT(message, Not(HasSubstr("9999"))) << text;
  }
  std::string deep(10'000, '[');
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { parse_record(deep, "f:1", 1 << 20); }),
              HasSubstr("nested deeper"));
}

}  // namespace
}  // namespace kamerton::data
