// SPDX-License-Identifier: Apache-2.0
// Masks from two renderings equal those from rendering every prefix.
#include "chat_mask.h"

#include <fstream>
#include <iterator>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::Json;

text::ChatTemplate compiled(const std::string& jinja) {
  return text::ChatTemplate::from_text(jinja, Json{{"bos_token", "<s>"}, {"eos_token", "</s>"}});
}

Json conversation(bool with_system, int turns) {
  Json messages = Json::array();
  if (with_system) {
    messages.push_back({{"role", "system"}, {"content", "be brief"}});
  }
  for (int i = 0; i < turns; ++i) {
    messages.push_back({{"role", "user"}, {"content", "q" + std::to_string(i)}});
    messages.push_back({{"role", "assistant"}, {"content", "a" + std::to_string(i)}});
  }
  return messages;
}

/// Where each assistant turn begins, by rendering everything before it with the generation prompt.
std::vector<size_t> begins_by_prefixes(const text::ChatTemplate& form, const Json& messages) {
  std::vector<size_t> begins;
  Json prefix = Json::array();
  for (const Json& message : messages) {
    if (message["role"] == "assistant") {
      begins.push_back(form.render(prefix, true).text.size());
    }
    prefix.push_back(message);
  }
  return begins;
}

constexpr const char* kGrowing[] = {
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n{% endfor %}{% if "
    "add_generation_prompt %}<assistant>{% endif %}",
    "{{ bos_token }}{% set ns = namespace(n=0) %}{% if messages[0]['role'] == 'system' %}{% set "
    "loop_messages = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set "
    "system = '' %}{% endif %}"
    "{% for m in loop_messages %}{% set ns.n = ns.n + 1 %}{% if loop.first %}[{{ system }}]{% "
    "endif %}{{ ns.n }}"
    "{% if m.role == 'user' %} U {% else %} A {% endif %}{{ m.content | trim }};{% endfor %}"
    "{% if add_generation_prompt %}{% endif %}",
    "{% macro turn(m) %}<{{ m.role }}>{{ m.content }}<e>{% endmacro %}{% for m in messages %}{{ "
    "turn(m) }}{% endfor %}"
    "{%- if add_generation_prompt -%}<assistant>{%- endif -%}"};

TEST(ChatMask, TwoRenderingsGiveWhatAllPrefixesGive) {
  for (const char* jinja : kGrowing) {
    const text::ChatTemplate form = compiled(jinja);
    EXPECT_TRUE(form.grows()) << jinja;
    for (const bool with_system : {false, true}) {
      const Json messages = conversation(with_system, 4);

      const MaskedChat masked = mask_chat(form, messages, Json::object(), {}, "test");

      const auto begins = begins_by_prefixes(form, messages);
      ASSERT_EQ(masked.assistant.size(), begins.size());
      for (size_t i = 0; i < begins.size(); ++i) {
        EXPECT_EQ(masked.assistant[i].first, begins[i]) << jinja;
      }
    }
  }
}

TEST(ChatMask, TemplatesThatLookAheadAreNotTakenAsGrowing) {
  for (const char* jinja :
       {"{% for m in messages %}{{ m.content }}{% if loop.last %}!{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ messages | length }}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ messages[-1].role }}{% endfor %}",
        "{% for m in messages %}{{ messages[loop.index0 + 1].role }}{% endfor %}",
        "{% set n = messages | length %}{% for m in messages %}{{ n }}{% endfor %}",
        "{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = m.content %}x{% endfor "
        "%}{{ ns.t }}",
        "{% set ns = namespace(t='') %}{% macro f() %}{{ ns.t }}{% endmacro %}{% for m in messages "
        "%}{% set ns.t = "
        "m.content %}{% endfor %}{{ f() }}",
        "{% for m in messages %}{{ m.content }}{% if add_generation_prompt %}?{% endif %}{% endfor "
        "%}",
        "{% for m in messages %}a{% endfor %}{% for m in messages %}b{% endfor %}",
        "{% for m in messages %}a{% else %}none{% endfor %}",
        "{% for m in messages if m.role == 'user' %}a{% endfor %}",
        "{% for m in messages %}{% if m.role == 'x' %}{% break %}{% endif %}{% endfor %}",
        "{% set messages = messages[1:] %}{{ messages[0].content }}{% for m in messages %}a{% "
        "endfor %}",
        "{% for m in messages[:-1] %}a{% endfor %}",
        "{% for m in messages[1:] %}a{% endfor %}{{ messages[1].content }}"}) {
    EXPECT_FALSE(compiled(jinja).grows()) << jinja;
  }
}

TEST(ChatMask, RefusesAPromptThatTurnsDoNotBeginWith) {
  const text::ChatTemplate form = compiled(
      "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if "
      "add_generation_prompt %}bot:{% endif %}");

  EXPECT_TRUE(form.grows());
  EXPECT_THROW(mask_chat(form, conversation(false, 2), Json::object(), {}, "test"), core::Error);
}

TEST(ChatMask, AConversationThatTheAssistantBeginsIsRefusedWithTheReason) {
  const Json messages = Json::array({{{"role", "assistant"}, {"content", "hello"}}});
  try {
    mask_chat(compiled(kGrowing[0]), messages, {}, {}, "a.jsonl:3");
    FAIL();
  } catch (const core::Error& error) {
    EXPECT_NE(std::string(error.what()).find("a.jsonl:3: the conversation starts with"),
              std::string::npos)
        << error.what();
  }
}

TEST(ChatMask, TimeIsLinearInTheTurns) {
  const text::ChatTemplate form = compiled(kGrowing[0]);
  const Json messages = conversation(false, 4000);

  const MaskedChat masked = mask_chat(form, messages, Json::object(), {}, "long");

  EXPECT_EQ(masked.assistant.size(), 4000u);  // by prefixes this would take minutes
}

TEST(ChatMask, RealTemplatesGiveTheSameSpansEitherWay) {
  const char* root = std::getenv("KAMERTON_SHARED");
  const auto folder =
      std::filesystem::path(root == nullptr ? "" : root) / "fixtures/sft/chat_templates";
  if (root == nullptr || !std::filesystem::exists(folder)) {
    GTEST_SKIP() << "KAMERTON_SHARED has no fixtures/sft/chat_templates";
  }
  int growing = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jinja") {
      continue;
    }
    std::ifstream file(entry.path(), std::ios::binary);
    const text::ChatTemplate form = compiled(
        std::string(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
    if (!form.grows() || form.has_generation_marks()) {
      continue;
    }
    ++growing;
    const Json messages = conversation(false, 3);
    const auto begins = begins_by_prefixes(form, messages);
    try {
      const MaskedChat masked = mask_chat(form, messages, Json::object(), {}, entry.path().stem());
      ASSERT_EQ(masked.assistant.size(), begins.size());
      for (size_t i = 0; i < begins.size(); ++i) {
        EXPECT_EQ(masked.assistant[i].first, begins[i]) << entry.path();
      }
    } catch (const core::Error&) {  // not to be proved either way; nothing to compare
    }
  }
  EXPECT_GT(growing, 0);
}

}  // namespace
}  // namespace kamerton::data
