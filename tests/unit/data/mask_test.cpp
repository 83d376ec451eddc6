// SPDX-License-Identifier: Apache-2.0
// Tokens and trained flags against TRL's SFTTrainer, and the proof of masks without marks.
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>

#include "layout.h"
#include "preparer.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using core::Json;
using ::testing::HasSubstr;

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// The trained tokens as text, each stretch in its own brackets.
std::string trained_text(const text::TokenizerBundle& bundle, const Tokenized& tokenized) {
  std::string result;
  std::vector<int32_t> stretch;
  for (size_t i = 0; i <= tokenized.ids.size(); ++i) {
    if (i < tokenized.ids.size() && tokenized.trained[i] != 0) {
      stretch.push_back(tokenized.ids[i]);
    } else if (!stretch.empty()) {
      result += "[" + bundle.tokenizer.decode(stretch, false) + "]";
      stretch.clear();
    }
  }
  return result;
}

Record record_of(const std::string& text) {
  const Json json = parse_record(text, "f:1", 1 << 20);
  return to_record(json, detect_layout(json).value(), true, "f:1");
}

class TrlCases : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto shared = shared_folder();
    if (!shared || !std::filesystem::exists(*shared / "fixtures/sft/prepare.json")) {
      GTEST_SKIP() << "KAMERTON_SHARED has no fixtures/sft/prepare.json";
    }
    root_ = *shared;
    cases_ = core::parse_json(slurp(root_ / "fixtures/sft/prepare.json"), "prepare.json");
    chatml_ = slurp(root_ / "fixtures/sft/chatml.jinja");
  }

  text::TokenizerBundle bundle_for(const Json& one, std::string chat_template) const {
    const bool plain = one["tokenizer"] == "stories260K";
    text::TokenizerBundle bundle = text::load_bundle(
        plain ? root_ / "models/stories260K" : root_ / "fixtures/sft/tokenizer_chatml");
    Json special = Json::object();
    for (const auto& [name, value] : bundle.special_tokens) {
      special[name] = value;
    }
    bundle.chat_template = text::ChatTemplate::from_text(chat_template, special);
    if (one["config"].contains("eos_token")) {
      bundle.eos_text = one["config"]["eos_token"].get<std::string>();
    }
    return bundle;
  }

  /// input_ids and labels of every example as [{...}, ...]; examples without a label are left out,
  /// as TRL does when it truncates.
  static Json run(const Json& one, const text::TokenizerBundle& bundle) {
    const Json& config = one["config"];
    const bool pair = one["examples"][0].contains("prompt");
    const TrainOn train_on = config.value("assistant_only_loss", false) ? TrainOn::Assistant
                             : pair && config.value("completion_only_loss", true)
                                 ? TrainOn::Completion
                                 : TrainOn::All;
    const Preparer preparer(bundle, train_on, 0);
    Json result = Json::array();
    for (const Json& example : one["examples"]) {
      const Record record = to_record(example, detect_layout(example).value(), true, "f:1");
      Tokenized tokenized = preparer.prepare(record);
      const auto limit = config.value("max_length", size_t{512});
      if (tokenized.ids.size() > limit) {
        const auto excess = static_cast<std::ptrdiff_t>(tokenized.ids.size() - limit);
        if (config.value("truncation_mode", std::string()) == "keep_end") {
          tokenized.ids.erase(tokenized.ids.begin(), tokenized.ids.begin() + excess);
          tokenized.trained.erase(tokenized.trained.begin(), tokenized.trained.begin() + excess);
        }
        tokenized.ids.resize(limit);
        tokenized.trained.resize(limit);
      }
      Json labels = Json::array();
      bool any = false;
      for (size_t i = 0; i < tokenized.ids.size(); ++i) {
        labels.push_back(tokenized.trained[i] != 0 ? tokenized.ids[i] : kNoTarget);
        any = any || tokenized.trained[i] != 0;
      }
      if (any) {
        result.push_back({{"input_ids", tokenized.ids}, {"labels", labels}});
      }
    }
    return result;
  }

  static void expect_equal(const Json& one, const Json& got, const std::string& how) {
    const std::string name =
        one["name"].get<std::string>() + "/" + one["tokenizer"].get<std::string>() + how;
    ASSERT_EQ(got.size(), one["expected"].size()) << name;
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i]["input_ids"], one["expected"][i]["input_ids"]) << name << " " << i;
      EXPECT_EQ(got[i]["labels"], one["expected"][i]["labels"]) << name << " " << i;
    }
  }

  std::filesystem::path root_;
  Json cases_;
  std::string chatml_;
};

TEST_F(TrlCases, TokensAndLabelsAreExact) {
  int compared = 0;
  for (const Json& one : cases_["cases"]) {
    if (one["config"].contains("packing")) {
      continue;  // rows are filled by another rule here: stream_test
    }
    expect_equal(one, run(one, bundle_for(one, chatml_)), "");
    ++compared;
  }
  EXPECT_EQ(compared, 17);
}

TEST_F(TrlCases, MasksProvedWithoutMarksEqualTheMarkedOnes) {
  std::string unmarked = chatml_;
  for (const std::string mark : {"{%- generation %}\n", "{%- endgeneration %}\n"}) {
    unmarked.erase(unmarked.find(mark), mark.size());
  }
  int compared = 0;
  for (const Json& one : cases_["cases"]) {
    if (one["config"].value("assistant_only_loss", false) && !one["config"].contains("packing")) {
      const text::TokenizerBundle bundle = bundle_for(one, unmarked);
      ASSERT_FALSE(bundle.chat_template->has_generation_marks());
      expect_equal(one, run(one, bundle), " unmarked");
      ++compared;
    }
  }
  EXPECT_EQ(compared, 8);
}

constexpr char kTwoTurns[] =
    R"({"messages":[{"role":"user","content":"q1"},{"role":"assistant","content":"a1 "},
                    {"role":"user","content":"q2"},{"role":"assistant","content":"a2"}]})";

TEST(Preparer, TrainsWhatTheAssistantSaysAndTheEndMarker) {
  for (const char* form : {kMarkedTemplate, kPlainTemplate}) {
    const text::TokenizerBundle bundle = byte_bundle(form);
    const Preparer preparer(bundle, TrainOn::Assistant, 0);
    EXPECT_EQ(trained_text(bundle, preparer.prepare(record_of(kTwoTurns))),
              "[a1 <|im_end|>][a2<|im_end|>]");
  }
}

TEST(Preparer, CompletionOfAConversationIsItsLastTurn) {
  const text::TokenizerBundle bundle = byte_bundle(kPlainTemplate);
  const Preparer preparer(bundle, TrainOn::Completion, 0);
  EXPECT_EQ(trained_text(bundle, preparer.prepare(record_of(kTwoTurns))), "[a2<|im_end|>\n]");
  EXPECT_THAT(
      error_of(
          ErrorKind::Data,
          [&] { preparer.prepare(record_of(R"({"messages":[{"role":"user","content":"q"}]})")); }),
      HasSubstr("f:1: the last message is not the assistant's"));
}

TEST(Preparer, ATurnWithoutClosingMarkerKeepsItsBlanks) {
  const text::TokenizerBundle bundle = byte_bundle(
      "{%- for m in messages %}{{- m['role'] + ':' + m['content'] }}{%- endfor %}"
      "{%- if add_generation_prompt %}{{- 'assistant:' }}{%- endif %}");
  const Preparer preparer(bundle, TrainOn::Assistant, 0);
  EXPECT_EQ(trained_text(bundle, preparer.prepare(record_of(kTwoTurns))), "[a1 ][a2]");
}

TEST(Preparer, RefusesATemplateThatRewritesEarlierTurns) {
  // Only the last answer is written out, as templates do that drop earlier reasoning.
  const text::TokenizerBundle bundle = byte_bundle(
      "{%- for m in messages %}{%- if m['role'] == 'assistant' and not loop.last %}"
      "{{- 'assistant:...;' }}{%- else %}{{- m['role'] + ':' + m['content'] + ';' }}"
      "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- 'assistant:' }}{%- endif %}");
  const Record record = record_of(kTwoTurns);
  EXPECT_THAT(
      error_of(ErrorKind::Data, [&] { Preparer(bundle, TrainOn::Assistant, 0).prepare(record); }),
      HasSubstr("f:1: which tokens are the assistant's cannot be proved"));
  EXPECT_EQ(trained_text(bundle, Preparer(bundle, TrainOn::Completion, 0).prepare(record)),
            "[a2;]");
}

TEST(Preparer, RefusesATemplateThatWritesThePromptOtherwise) {
  const text::TokenizerBundle bundle = byte_bundle(
      "{%- if add_generation_prompt %}{{- 'ASK ' }}{%- endif %}"
      "{%- for m in messages %}{{- m['content'] + ';' }}{%- endfor %}");
  const Record record = record_of(kTwoTurns);
  EXPECT_THAT(
      error_of(ErrorKind::Data, [&] { Preparer(bundle, TrainOn::Completion, 0).prepare(record); }),
      HasSubstr("writes the prompt alone otherwise"));
}

TEST(Preparer, ATemplateErrorNamesTheRecord) {
  const text::TokenizerBundle bundle = byte_bundle("{{ raise_exception('roles must alternate') }}");
  EXPECT_THAT(error_of(ErrorKind::Data,
                       [&] { Preparer(bundle, TrainOn::All, 0).prepare(record_of(kTwoTurns)); }),
              testing::AllOf(HasSubstr("f:1"), HasSubstr("roles must alternate")));
}

TEST(Preparer, ConversationsNeedATemplate) {
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  EXPECT_THAT(error_of(ErrorKind::Config,
                       [&] { Preparer(bundle, TrainOn::All, 0).prepare(record_of(kTwoTurns)); }),
              HasSubstr("no chat template"));
}

TEST(Preparer, QuestionsAreThePromptAndTheLastAnswer) {
  const text::TokenizerBundle bundle = byte_bundle(kPlainTemplate);
  const Preparer preparer(bundle, TrainOn::Assistant, 0);
  const Question chat = preparer.question(record_of(kTwoTurns));
  EXPECT_EQ(chat.prompt,
            "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1 <|im_end|>\n"
            "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(chat.reference, "a2");
  EXPECT_FALSE(chat.add_special_tokens);
  const Question text = preparer.question(record_of(R"({"prompt":"p","completion":" c"})"));
  EXPECT_EQ(text.prompt, "p");
  EXPECT_EQ(text.reference, " c");
  EXPECT_TRUE(text.add_special_tokens);
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { preparer.question(record_of(R"({"text":"x"})")); }),
              HasSubstr("asks nothing"));
}

}  // namespace
}  // namespace kamerton::data
