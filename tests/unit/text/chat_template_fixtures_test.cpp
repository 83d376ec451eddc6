// SPDX-License-Identifier: Apache-2.0
// Renderings equal to transformers', byte for byte, and errors where it has errors.
#include <gtest/gtest.h>

#include "kamerton/core/error.h"
#include "kamerton/text/chat_template.h"

#include "fixture_files.h"

namespace kamerton::text {
namespace {

constexpr int64_t kNow = 1749988800;  // 2025-06-15T12:00:00 UTC, the fixtures' clock

class FixtureClock : public testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT_SHARED();
    setenv("TZ", "UTC", 1);
    tzset();
  }
};

using JinjaFixture = FixtureClock;
using ChatTemplateFixture = FixtureClock;

TEST_F(JinjaFixture, RendersEachSnippetAsJinja) {
  const core::Json all = load_json(shared_dir() / "fixtures/sft/jinja.json");
  RenderOptions options;
  options.now = kNow;
  size_t cases = 0;
  for (const core::Json& item : all["cases"]) {
    const auto source = item["template"].get<std::string>();
    ++cases;
    try {
      const auto compiled = ChatTemplate::from_text(source, core::Json::object());
      const std::string text = compiled.render_variables(all["context"], options).text;
      EXPECT_FALSE(item.contains("error")) << source << "\nrendered: " << text;
      if (item.contains("text")) {
        EXPECT_EQ(text, item["text"].get<std::string>()) << source;
      }
    } catch (const core::Error& error) {
      EXPECT_TRUE(item.contains("error")) << source << "\n" << error.what();
    }
  }
  EXPECT_EQ(cases, 100u);
}

std::vector<std::pair<size_t, size_t>> in_characters(const RenderedChat& chat) {
  std::vector<std::pair<size_t, size_t>> out;
  const auto count = [&](size_t bytes) {
    return static_cast<size_t>(std::count_if(
        chat.text.begin(), chat.text.begin() + static_cast<ptrdiff_t>(bytes), [](char c) {
          return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
        }));
  };
  for (const auto& [begin, end] : chat.generation_spans) {
    out.emplace_back(count(begin), count(end));
  }
  return out;
}

void check_case(const core::Json& item,
                const ChatTemplate& compiled,
                const core::Json& inputs,
                const std::string& name) {
  const core::Json& messages = inputs["messages"][item["messages"].get<std::string>()];
  RenderOptions options;
  options.now = kNow;
  core::Json extra = core::Json::object();
  for (const auto& [key, value] : item["arguments"].items()) {
    if (key == "add_generation_prompt") {
      options.add_generation_prompt = value.get<bool>();
    } else if (key == "continue_final_message") {
      options.continue_final_message = "content";
    } else {
      extra[key] = value == "WEATHER" ? inputs["WEATHER"] : value;
    }
  }
  const std::string label =
      name + " " + item["messages"].get<std::string>() + " " + item["arguments"].dump();
  try {
    const RenderedChat chat = compiled.render(messages, options, extra);
    EXPECT_FALSE(item.contains("error")) << label;
    if (item.contains("text")) {
      EXPECT_EQ(chat.text, item["text"].get<std::string>()) << label;
    }
    if (item.contains("generation_spans")) {
      EXPECT_EQ(in_characters(chat),
                (item["generation_spans"].get<std::vector<std::pair<size_t, size_t>>>()))
          << label;
    }
  } catch (const core::Error& error) {
    EXPECT_TRUE(item.contains("error")) << label << "\n" << error.what();
  }
}

TEST_F(ChatTemplateFixture, RendersEachConversationAsTransformers) {
  const auto dir = shared_dir() / "fixtures/sft/chat_templates";
  const core::Json inputs = load_json(dir / "inputs.json");
  size_t cases = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.path().extension() != ".jinja") {
      continue;
    }
    const std::string source = slurp(entry.path());
    const auto compiled = ChatTemplate::from_text(source, inputs["special_tokens"]);
    EXPECT_EQ(compiled.has_generation_marks(), source.find("endgeneration") != std::string::npos);
    const core::Json expected =
        load_json(std::filesystem::path(entry.path()).replace_extension(".json"));
    for (const core::Json& item : expected["cases"]) {
      check_case(item, compiled, inputs, entry.path().stem().string());
      ++cases;
    }
  }
  EXPECT_EQ(cases, 997u);
}

}  // namespace
}  // namespace kamerton::text
