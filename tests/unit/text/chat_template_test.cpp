// SPDX-License-Identifier: Apache-2.0
// The sandbox, and what a template author sees when something is wrong.
#include "kamerton/text/chat_template.h"

#include <ctime>

#include <gtest/gtest.h>

#include "kamerton/core/error.h"

#include "fixture_files.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

std::string render(const std::string& source, const core::Json& variables = core::Json::object()) {
  return ChatTemplate::from_text(source, core::Json::object()).render_variables(variables, {}).text;
}

void expect_error(const std::string& source, const std::string& part) {
  try {
    const std::string text = render(source);
    ADD_FAILURE() << source.substr(0, 200) << " gave " << text.substr(0, 200);
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Data);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(ChatTemplate, MarksWhatTheAssistantSaysInBytes) {
  const auto compiled = ChatTemplate::from_text(
      "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ "
      "m.content }}"
      "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
      core::Json::object());
  const core::Json messages = core::parse_json(
      R"([{"role":"user","content":"é"},{"role":"assistant","content":"ok","tool_calls":null}])",
      "test");

  const RenderedChat chat = compiled.render(messages, false);

  EXPECT_EQ(chat.text, "<user>é<assistant>ok");
  EXPECT_TRUE(compiled.has_generation_marks());
  ASSERT_EQ(chat.generation_spans.size(), 1u);
  EXPECT_EQ(chat.text.substr(chat.generation_spans[0].first), "ok");
}

TEST(ChatTemplate, NamesTheLineOfASyntaxError) {
  expect_error("a\nb\n{% if x %}", "line 3");
  expect_error("{{ 'open }}", "not closed");
  expect_error("{% include 'file' %}", "not known");
  expect_error("{{ x | nosuch }}", "no filter");
  expect_error("{% break %}", "outside of a loop");
}

TEST(ChatTemplate, RefusesAnEmptyConversation) {
  const auto compiled = ChatTemplate::from_text("x", core::Json::object());
  EXPECT_THROW(compiled.render(core::Json::array(), false), core::Error);
}

TEST(ChatTemplateSandbox, StopsEndlessWork) {
  const std::string hostile[] = {
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{{ 'a' * 99999999999 }}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s "
      "%}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% "
      "endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}{% "
      "endfor %}{{ ns.l == [ns.l[0], [ns.l[1][0], 0]] }}",
      "{% set ns = namespace(l=1) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor "
      "%}{{ ns.l }}",
      "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns.me }}",
      "{{ '%99999999d' % 1 }}",
      "{{ 10 ** 10 ** 10 }}",
      "{{ 'x' | center(99999999999) }}",
      "{{ ('a' * 9999999).replace('a', 'b' * 9999999) }}",
      "{{ [].append(1) }}",
      "{{ ''.__class__.__mro__ }}",
      "{{ namespace(_x=1) }}",
      "{{ range(9999999) }}"};
  for (const std::string& source : hostile) {
    const std::clock_t begin = std::clock();  // of this process: other load does not count
    EXPECT_THROW(render(source), core::Error) << source;
    EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 10.0) << source;
  }
}

TEST(ChatTemplateSandbox, BoundsNestingInTheSource) {
  const auto repeated = [](const std::string& part, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) {
      out += part;
    }
    return out;
  };
  expect_error("{{ " + repeated("(", 9999) + "1" + repeated(")", 9999) + " }}",
               "nested too deeply");
  expect_error("{{ " + repeated("not ", 100000) + "x }}", "nested too deeply");
  expect_error("{{ 1" + repeated("+1", 100000) + " }}", "400 links");
  expect_error("{{ x" + repeated(".y", 100000) + " }}", "400 links");
  expect_error(repeated("{% if x %}", 100000), "nested too deeply");
  expect_error("{% if x %}" + repeated("{% elif y %}", 100000), "nested too deeply");
  EXPECT_EQ(render("{% if x %}" + repeated("{% elif y %}", 30) + "{% else %}z{% endif %}"), "z");
}

uint64_t next(uint64_t& state) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return state >> 33;
}

std::string mutated(std::string text, uint64_t& state) {
  constexpr const char* kParts[] = {"{{ ",         " }}",       "{% ",   " %}",
                                    "{%- ",        " -%}",      "| ",    "(",
                                    ")",           "[",         "]",     "loop.",
                                    "'",           "endfor",    "endif", "for x in messages",
                                    "if ",         "not ",      "is ",   "none",
                                    " ~ ",         "{#",        "#}",    "\n",
                                    "set ns.a = ", "::",        "-1",    "99999999999",
                                    "** ",         "// 0",      "% ",    "{",
                                    "}",           "generation"};
  const uint64_t edits = 1 + next(state) % 5;
  for (uint64_t i = 0; i < edits && !text.empty(); ++i) {
    const size_t at = next(state) % text.size();
    const size_t size = std::min<size_t>(1 + next(state) % 40, text.size() - at);
    switch (next(state) % 5) {
      case 0:
        text[at] = static_cast<char>(next(state) % 256);
        break;
      case 1:
        text.erase(at, size);
        break;
      case 2:
        text.insert(at, kParts[next(state) % std::size(kParts)]);
        break;
      case 3:
        text.insert(at, text.substr(next(state) % text.size(), size));
        break;
      default:
        text.replace(at, size, kParts[next(state) % std::size(kParts)]);
    }
  }
  return text;
}

TEST(ChatTemplateSandbox, SurvivesMutatedTemplates) {
  const std::string bases[] = {
      "{% set ns = namespace(a=0) %}{% for m in messages %}{% if loop.first and m['role'] != "
      "'system' %}{{ bos_token }}"
      "{% endif %}{{ m.role | upper ~ ': ' ~ m.content | trim }}{% set ns.a = ns.a + loop.index0 "
      "// 2 %}"
      "{%- if m.tool_calls is defined %}{{ m.tool_calls | tojson(indent=2) }}{% endif -%}{% endfor "
      "%}{{ ns.a }}",
      "{% macro f(a, b=[1, 2.5]) %}{{ a[1:] | join(', ') }}{{ '%s-%05.2f' % (a, 2.5) }}{{ caller() "
      "}}{% endmacro %}"
      "{% call f('xyz') %}{% generation %}{{ messages[-1]['content'].split('a')[-1] }}{% "
      "endgeneration %}{% endcall %}"
      "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list }}",
      "{% for k, v in {'b': 1, 'a': [true, none]}.items() recursive %}{{ k }}={{ v }}{% else %}-{% "
      "endfor %}{% filter upper %}"
      "{{ 'a b' | title | replace('a', 'é') | length + 3 ** 2 }}{% endfilter %}{% raw %}{{ x }}{% "
      "endraw %}{{ -7 // 2 }}"};
  const core::Json messages = core::parse_json(
      R"([{"role":"system","content":"s"},{"role":"user","content":"banana"},{"role":"assistant","content":"ok é"}])",
      "test");
  RenderOptions options;
  options.limits = {.max_steps = 200000, .max_output_bytes = 1 << 20, .max_depth = 300};
  options.now = 0;
  uint64_t state = 5;
  int rendered = 0;
  for (int round = 0; round < 30000; ++round) {
    const std::string source = mutated(bases[round % 3], state);
    try {
      const std::string text = ChatTemplate::from_text(source, core::Json::object())
                                   .render(messages, options, core::Json::object())
                                   .text;
      EXPECT_EQ(valid_prefix(text), text.size()) << source;
      ++rendered;
    } catch (const core::Error&) {
    }
  }
  EXPECT_GT(rendered, 300);
}

}  // namespace
}  // namespace kamerton::text
