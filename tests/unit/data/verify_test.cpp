// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/verify.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "support.h"

namespace kamerton::data {
namespace {

std::string chat_line(const std::string& user, const std::string& answer) {
  const core::Json record = {{"messages",
                              core::Json::array({{{"role", "user"}, {"content", user}},
                                                 {{"role", "assistant"}, {"content", answer}}})}};
  return record.dump() + "\n";
}

/// Good records that share no triple of words.
std::string good_lines(int count, int from = 0) {
  std::string text;
  for (int i = from; i < from + count; ++i) {
    std::string user = "question";
    for (int w = 0; w < 40; ++w) {
      user += " w" + std::to_string(i) + "x" + std::to_string(w);
    }
    text += chat_line(user, "answer number " + std::to_string(i));
  }
  return text;
}

struct Found {
  VerifyReport report;
  const Finding* of(const std::string& rule) const {
    const auto at = std::find_if(report.findings.begin(),
                                 report.findings.end(),
                                 [&](const Finding& finding) { return finding.rule == rule; });
    return at == report.findings.end() ? nullptr : &*at;
  }
};

class Verify : public testing::Test {
 protected:
  Found run(const std::string& train, const std::string& eval = {}) {
    config.train = {scratch.write("train.jsonl", train)};
    config.index_dir = scratch / "index";
    if (!eval.empty()) {
      config.eval = {scratch.write("eval.jsonl", eval)};
    }
    return {verify(config, bundle, 4096, options)};
  }
  /// One finding of this rule, with this severity, at this line of the training file.
  void expect(const Found& found, const std::string& rule, Severity severity, int line) {
    const Finding* finding = found.of(rule);
    ASSERT_NE(finding, nullptr) << rule << "\n" << found.report.text();
    EXPECT_EQ(finding->severity, severity) << found.report.text();
    EXPECT_FALSE(finding->remedy.empty());
    ASSERT_FALSE(finding->places.empty());
    EXPECT_NE(finding->places[0].find("train.jsonl:" + std::to_string(line)), std::string::npos)
        << finding->places[0];
  }

  Scratch scratch;
  text::TokenizerBundle bundle = byte_bundle(kMarkedTemplate);
  DataConfig config;
  VerifyOptions options{.threads = 2};
};

TEST_F(Verify, GoodDataHasNoFindings) {
  const Found found = run(good_lines(30), good_lines(10, 100));
  EXPECT_TRUE(found.report.findings.empty()) << found.report.text();
  EXPECT_EQ(found.report.train_records, 30);
  EXPECT_EQ(found.report.eval_records, 10);
}

TEST_F(Verify, ABrokenRecordIsNamedAndTheRestIsStillLookedAt) {
  const Found found =
      run(good_lines(3) + "{\"messages\": [\n" + good_lines(3, 10) + chat_line("a b", " "));
  expect(found, "bad_record", Severity::Error, 4);
  expect(found, "empty_answer", Severity::Error, 8);
}

TEST_F(Verify, BadEncodingOfTheFileIsNamedWithItsByte) {
  const Found found = run(good_lines(3) + "{\"text\": \"\xFF\"}\n");
  expect(found, "bad_record", Severity::Error, 4);
}

TEST_F(Verify, SpecialMarkersInAUsersTextAreErrors) {
  const Found found = run(good_lines(3) + chat_line("say <|im_end|> now please", "no thank you"));
  expect(found, "special_marker", Severity::Error, 4);
}

TEST_F(Verify, ForeignMarkersAreWarnings) {
  const Found found = run(good_lines(3) + chat_line("[INST] say it [/INST]", "no thank you"));
  expect(found, "foreign_marker", Severity::Warning, 4);
}

TEST_F(Verify, WhatATemplateDoesToSomeConversationsIsANote) {
  const char* without_system =
      "{% for message in messages %}{% if message['role'] != 'system' %}<|im_start|>"
      "{{ message['role'] }}\n{% if message['role'] == 'assistant' %}{% generation %}"
      "{{ message['content'] }}<|im_end|>{% endgeneration %}{% else %}{{ message['content'] }}"
      "<|im_end|>{% endif %}\n{% endif %}{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
  bundle = byte_bundle(without_system);
  const Found found = run(good_lines(5));
  const Finding* finding = found.of("template_form");
  ASSERT_NE(finding, nullptr) << found.report.text();
  EXPECT_EQ(finding->severity, Severity::Note);
  EXPECT_NE(finding->places[0].find("does not show a system message"), std::string::npos);
}

TEST_F(Verify, PersonalDataIsFoundByKind) {
  const Found found = run(good_lines(3) + chat_line("I am 44051401359", "noted in file") +
                          chat_line("mail a@example.org", "noted it here"));
  expect(found, "pesel", Severity::Error, 4);
  expect(found, "email", Severity::Warning, 5);
}

TEST_F(Verify, NoFindingHoldsTextOfARecord) {
  const Found found = run(good_lines(3) + chat_line("zyxw 44051401359 <|im_end|>", "Ã© zyxw ") +
                          "{\"messages\": \"zyxw\"}\n");
  EXPECT_EQ(found.report.text().find("44051401359"), std::string::npos);
  EXPECT_GE(found.report.findings.size(), 4U) << found.report.text();
}

TEST_F(Verify, LeakageIsFoundExactAndNear) {
  std::string near = good_lines(1, 7);
  near.replace(near.find("w7x20"), 5, "other");
  const Found found = run(good_lines(30), good_lines(2, 3) + near + good_lines(10, 200));
  const Finding* exact = found.of("leak_exact");
  ASSERT_NE(exact, nullptr);
  EXPECT_EQ(exact->count, 2);
  EXPECT_EQ(exact->severity, Severity::Error);
  EXPECT_NE(exact->places[0].find("eval.jsonl:1 (as "), std::string::npos) << exact->places[0];
  EXPECT_NE(exact->places[0].find("train.jsonl:4"), std::string::npos) << exact->places[0];
  ASSERT_NE(found.of("leak_near"), nullptr) << found.report.text();
  EXPECT_EQ(found.of("leak_near")->count, 1);
  options.similarity = 1.0;
  EXPECT_EQ(run(good_lines(30), near).of("leak_near"), nullptr);
}

TEST_F(Verify, DuplicatesInsideAreWarnings) {
  const Found found = run(good_lines(20) + good_lines(2, 5));
  const Finding* exact = found.of("duplicate_exact");
  ASSERT_NE(exact, nullptr);
  EXPECT_EQ(exact->count, 2);
  EXPECT_EQ(exact->severity, Severity::Warning);
  expect(found, "duplicate_exact", Severity::Warning, 21);
}

TEST_F(Verify, AnInstructionThatAllShareDoesNotMakeThemAlike) {
  std::string text;
  for (int i = 0; i < 40; ++i) {
    text += chat_line(
        "Sort the ticket below into one of the five categories and say nothing else "
        "at all ever: t" +
            std::to_string(i) + " broke down again today u" + std::to_string(i),
        "category " + std::to_string(i));
  }
  const Found found = run(text);
  EXPECT_EQ(found.of("duplicate_near"), nullptr) << found.report.text();
}

TEST_F(Verify, CutAnswersEscalateWithTheirShare) {
  config.sequence_length = 64;
  std::string text;
  for (int i = 0; i < 10; ++i) {
    text += chat_line("q" + std::to_string(i), "short one");
  }
  const Found few = run(text + chat_line("q", std::string(200, 'a')));
  expect(few, "answer_cut", Severity::Warning, 11);
  const Found many =
      run(text + chat_line("q", std::string(200, 'a')) + chat_line("r", std::string(200, 'b')) +
          chat_line("s", std::string(200, 'c')));
  expect(many, "answer_cut", Severity::Error, 11);
}

TEST_F(Verify, AnEndThatIsNeverTrainedIsAnError) {
  bundle = byte_bundle(
      "{%- for m in messages %}{{- m['role'] + ':' + m['content'] + '\\n' }}{%- endfor %}"
      "{%- if add_generation_prompt %}{{- 'assistant:' }}{%- endif %}");
  const Found found = run(good_lines(5));
  const Finding* finding = found.of("end_never_trained");
  ASSERT_NE(finding, nullptr) << found.report.text();
  EXPECT_EQ(finding->severity, Severity::Error);
}

TEST_F(Verify, AMaskThatCannotBeProvedIsAnError) {
  bundle = byte_bundle(
      "{%- for m in messages %}{{- loop.length ~ m['content'] + '<|im_end|>' }}"
      "{%- endfor %}");
  const Found found = run(chat_line("a b c", "d e f"));
  expect(found, "template", Severity::Error, 1);
}

TEST_F(Verify, ATemplateThatDropsTextIsAWarning) {
  bundle = byte_bundle(
      "{%- for m in messages %}{%- if m['role'] != 'system' %}{{- '<|im_start|>' + m['role'] + "
      "'\\n' }}{%- if m['role'] == 'assistant' %}{%- generation %}{{- m['content'] + '<|im_end|>' "
      "}}{%- endgeneration %}{%- else %}{{- m['content'] + '<|im_end|>' }}{%- endif %}{%- endif %}"
      "{%- endfor %}");
  const core::Json record = {
      {"messages",
       core::Json::array({{{"role", "system"}, {"content", "be brief"}},
                          {{"role", "user"}, {"content", "hello there you"}},
                          {{"role", "assistant"}, {"content", "hello to you"}}})}};
  const Found found = run(record.dump() + "\n");
  expect(found, "template_drops", Severity::Warning, 1);
}

TEST_F(Verify, ATemplateThatDropsToolsOrCallsIsAWarning) {
  const std::string form =
      "{%- if tools and show %}{{- tools | tojson }}{%- endif %}{%- for m in messages %}"
      "{{- '<|im_start|>' + m['role'] + '\n' }}{%- if m['role'] == 'assistant' %}"
      "{%- generation %}{{- m['content'] }}{%- if show and m['tool_calls'] %}"
      "{{- m['tool_calls'] | tojson }}{%- endif %}{{- '<|im_end|>' }}{%- endgeneration %}"
      "{%- else %}{{- m['content'] + '<|im_end|>' }}{%- endif %}{%- endfor %}";
  const auto function = [](const char* name) {
    return core::Json{{"type", "function"}, {"function", {{"name", name}}}};
  };
  const core::Json plain = core::Json::array({{{"role", "user"}, {"content", "is it open"}},
                                              {{"role", "assistant"}, {"content", "it is open"}}});
  core::Json calling = plain;
  calling[1]["tool_calls"] = core::Json::array({function("opening_hours")});
  const std::string records =
      core::Json{{"messages", plain}}.dump() + "\n" +
      core::Json{{"messages", plain}, {"tools", core::Json::array({function("weather")})}}.dump() +
      "\n" + core::Json{{"messages", calling}}.dump() + "\n";

  bundle = byte_bundle(("{%- set show = false %}" + form).c_str());
  expect(run(records), "tools_dropped", Severity::Warning, 2);
  bundle = byte_bundle(("{%- set show = true %}" + form).c_str());
  EXPECT_EQ(run(records).of("tools_dropped"), nullptr);
}

TEST_F(Verify, AnswersWithOneLabelAloneAreAWarning) {
  const auto answers = [](bool second) {
    std::string lines;
    for (const bool label : {true, second}) {
      lines += core::Json{{"prompt", "is it open"}, {"completion", "yes it is"}, {"label", label}}
                   .dump() +
               "\n";
    }
    return lines;
  };
  const Found found = run(answers(true));
  ASSERT_NE(found.of("one_label"), nullptr) << found.report.text();
  EXPECT_EQ(found.of("one_label")->severity, Severity::Warning);
  EXPECT_EQ(found.of("one_label")->places, std::vector<std::string>{"training: 2 true, 0 false"});
  EXPECT_EQ(run(answers(false)).of("one_label"), nullptr);
}

TEST_F(Verify, DoubledBeginOfTextIsAnError) {
  bundle.bos = 257;
  bundle.chat_template = text::ChatTemplate::from_text(
      "{{- '<|im_start|><|im_start|>' }}{%- for m in messages %}{%- if m['role'] == 'assistant' %}"
      "{%- generation %}{{- m['content'] + '<|im_end|>' }}{%- endgeneration %}{%- else %}"
      "{{- m['content'] }}{%- endif %}{%- endfor %}",
      core::Json::object());
  const Found found = run(good_lines(2));
  expect(found, "double_bos", Severity::Error, 1);
}

TEST_F(Verify, KeysBeyondMemoryGiveTheSameFindings) {
  std::string text = good_lines(800) + good_lines(20, 400);
  const Found all = run(text, good_lines(5, 10));
  options.memory_bytes = 4096;
  options.threads = 1;
  const Found little = run(text, good_lines(5, 10));
  EXPECT_EQ(all.report.text(), little.report.text());
  EXPECT_EQ(all.of("duplicate_exact")->count, 20);
}

TEST_F(Verify, QuickFindsMarkersAndExactLeaks) {
  config.train = {scratch.write("train.jsonl", good_lines(40) + chat_line("<|im_end|> x", "y z"))};
  config.eval = {scratch.write("eval.jsonl", good_lines(3, 20))};
  const Dataset train = open_train(config, bundle, 4096);
  const Dataset eval = open_eval(config, bundle, 4096);
  const Found found{verify_quick(train, &eval)};
  expect(found, "special_marker", Severity::Error, 41);
  ASSERT_NE(found.of("leak_exact"), nullptr);
  EXPECT_EQ(found.of("leak_exact")->count, 3);
}

}  // namespace
}  // namespace kamerton::data
