// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/template_lint.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::text {
namespace {

constexpr const char* kTokenizer =
    R"({"added_tokens":[{"id":0,"content":"<s>","special":true},{"id":1,"content":"<e>","special":true}],)"
    R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"type":"BPE","vocab":{"<s>":0,"<e>":1,)"
    R"("a":2},"merges":[]}})";

TokenizerBundle bundle_of(const std::string& jinja, const std::string& tokenizer = kTokenizer) {
  TokenizerBundle bundle(Tokenizer::from_json(tokenizer, "tiny"));
  bundle.bos = 0;
  bundle.bos_text = "<s>";
  bundle.eos = 1;
  bundle.eos_text = "<e>";
  bundle.chat_template =
      ChatTemplate::from_text(jinja, core::Json{{"bos_token", "<s>"}, {"eos_token", "<e>"}});
  return bundle;
}

constexpr const char* kPlain =
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor "
    "%}"
    "{% if add_generation_prompt %}assistant: {% endif %}";

TEST(TemplateLint, FindsNothingInAPlainTemplate) {
  const TemplateFindings found = lint_template(bundle_of(kPlain));

  EXPECT_TRUE(found.problems.empty()) << found.problems.front();
  EXPECT_TRUE(found.prefix_preserving && found.ends_turns && found.has_generation_prompt);
  EXPECT_TRUE(found.writes_bos && found.shows_system);
  EXPECT_FALSE(found.doubles_bos || found.tokenizer_adds_bos || found.marks_generation);
  EXPECT_EQ(found.closing, "<e>\n");
}

TEST(TemplateLint, FindsTemplatesThatRewriteEarlierTurns) {
  const TemplateFindings found = lint_template(bundle_of(
      "{% for m in messages %}{{ m.role }}:{% if loop.last %}!{% endif %}{{ m.content }}<e>"
      "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"));

  EXPECT_FALSE(found.prefix_preserving);
  EXPECT_EQ(found.problems.size(), 1u);
}

TEST(TemplateLint, FindsTurnsThatNeverEndAndPromptsThatAddNothing) {
  const TemplateFindings found =
      lint_template(bundle_of("{% for m in messages %}{{ m.content }}\n{% endfor %}"));

  EXPECT_FALSE(found.ends_turns);
  EXPECT_FALSE(found.has_generation_prompt);
  EXPECT_EQ(found.problems.size(), 2u);
}

TEST(TemplateLint, FindsBosTwice) {
  const std::string adding =
      std::string(kTokenizer).substr(0, std::string(kTokenizer).size() - 1) +
      R"(,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":)"
      R"({"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[0]}}}})";

  EXPECT_TRUE(lint_template(bundle_of(std::string("<s>") + kPlain)).doubles_bos);
  EXPECT_TRUE(lint_template(bundle_of(kPlain, adding)).doubles_bos);
  EXPECT_TRUE(lint_template(bundle_of(kPlain, adding)).tokenizer_adds_bos);
}

TEST(TemplateLint, SaysWhereASystemMessageIsLost) {
  const TemplateFindings found = lint_template(
      bundle_of("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" +
                std::string(kPlain)));

  EXPECT_FALSE(found.shows_system);
  ASSERT_EQ(found.problems.size(), 1u);
  EXPECT_NE(found.problems[0].find("system"), std::string::npos);
}

TEST(TemplateLint, NeedsATemplateThatRenders) {
  TokenizerBundle none = bundle_of(kPlain);
  none.chat_template.reset();

  EXPECT_THROW(lint_template(none), core::Error);
  EXPECT_THROW(lint_template(bundle_of("{{ raise_exception('never') }}")), core::Error);
}

}  // namespace
}  // namespace kamerton::text
