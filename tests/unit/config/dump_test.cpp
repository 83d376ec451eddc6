// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

#include "unit/config/sample_config.h"

namespace kamerton::config {
namespace {

using sample::Config;
using testing::HasSubstr;

Config reload(const Config& config) {
  Config loaded;
  loaded.sources.clear();
  Document::from_text(dump(config), "dump").fill(loaded);
  return loaded;
}

TEST(Dump, WritesEveryKnobInTheOrderOfDescribe) {
  EXPECT_EQ(
      dump(Config()),
      "name: run\nfast: false\nsteps: 100\ntargets: [q_proj, v_proj]\nseed: null\nclip: 1.0\ninit: "
      "null\n"
      "optim:\n  lr: 0.0001\n  betas: [0.9, 0.95]\n  schedule:\n    kind: cosine\n    warmup: 10\n"
      "sources:\n  - path: a.jsonl\n    weight: 2.0\n  - path: b.jsonl\n    weight: 3.0\n");
}

TEST(Dump, LoadsBackEqual) {
  Config config;
  config.optim.lr = 0.1 + 0.2;
  config.clip = 1e-300;
  config.seed = std::numeric_limits<int64_t>::max();
  config.optim.betas = {};
  config.sources = {};
  config.init = "";

  EXPECT_EQ(reload(config), config);
  EXPECT_EQ(reload(Config()), Config());
}

TEST(Dump, QuotesEveryStringThatYamlWouldReadOtherwise) {
  for (const std::string text : {"",
                                 " ",
                                 "true",
                                 "No",
                                 "null",
                                 "~",
                                 "010",
                                 "1e5",
                                 ".nan",
                                 "- a",
                                 "a: b",
                                 "a #b",
                                 "#",
                                 "*x",
                                 "&x",
                                 "!x",
                                 "%x",
                                 "@x",
                                 "`x",
                                 "'",
                                 "\"",
                                 "\\",
                                 "\\n",
                                 "a\nb",
                                 "a\n\nb\n",
                                 "tab\there",
                                 "\r",
                                 "\x01",
                                 "\x7f",
                                 "zażółć",
                                 "\xF0\x9F\x98\x80",
                                 "\xC2\x85",
                                 "\xE2\x80\xA8x",
                                 "\xEF\xBB\xBFx",
                                 "[x]",
                                 "{x}",
                                 "a, b",
                                 "?",
                                 "|",
                                 ">",
                                 "=",
                                 "<<",
                                 "/a/b-c_d.jsonl",
                                 "C:\\x",
                                 "x ",
                                 "---",
                                 "...",
                                 "{% if x %}"}) {
    Config config;
    config.name = text;
    config.init = text;
    config.targets = {text, text};
    config.sources[0].path = text;

    EXPECT_EQ(reload(config), config) << "text: " << text << "\n" << dump(config);
  }
}

TEST(Dump, RefusesNumbersThatWouldNotLoad) {
  Config config;
  config.optim.lr = std::numeric_limits<double>::infinity();

  EXPECT_THROW(dump(config), core::Error);
}

std::string text_of(std::string_view prefix) {
  Config config;
  return help_text([&](Fields& f) { describe(f, config); }, prefix);
}

TEST(HelpText, SaysDefaultUnitRangeAndCost) {
  const std::string text = text_of("");

  EXPECT_THAT(text,
              HasSubstr("  steps: an integer from 1 to 1000000000, default 100\n      How long. "
                        "Unit: optimizer updates.\n"));
  EXPECT_THAT(text, HasSubstr("optim: The update rule.\n"));
  EXPECT_THAT(text,
              HasSubstr("  optim.lr: a number > 0 and <= 1, default 0.0001\n      Peak learning "
                        "rate. Cost: too high a rate diverges\n"));
  EXPECT_THAT(
      text, HasSubstr("  optim.schedule.kind: one of cosine, linear, constant, default cosine\n"));
  EXPECT_THAT(text, HasSubstr("  seed: an integer >= 0, default none\n"));
  EXPECT_THAT(text, HasSubstr("  sources.<i>.path: text, default x.jsonl\n"));
}

TEST(HelpText, SelectsASectionOrAKnob) {
  EXPECT_EQ(text_of("optim.schedule.warmup"),
            "optim.schedule: How the rate changes.\n  optim.schedule.warmup: an integer >= 0, "
            "default 10\n      Rise of the rate. Unit: optimizer updates.\n");
  EXPECT_THAT(text_of("optim"),
              testing::AllOf(HasSubstr("optim.schedule.kind"), testing::Not(HasSubstr("steps"))));
  EXPECT_THAT(
      [] {
        try {
          return text_of("optmi");
        } catch (const core::Error& error) {
          return std::string(error.what());
        }
      }(),
      HasSubstr("no such section or key; got 'optmi'; try 'optim'"));
}

TEST(HelpText, LeavesTheStructAlone) {
  Config config;
  help_text([&](Fields& f) { describe(f, config); });

  EXPECT_EQ(config, Config());
}

TEST(HelpMarkdown, IsATablePerSectionWithEscapedCells) {
  Config config;
  const std::string text = help_markdown([&](Fields& f) { describe(f, config); });

  EXPECT_THAT(text,
              HasSubstr("| `steps` | an integer from 1 to 1000000000 | `100` | optimizer updates | "
                        "How long. |\n"));
  EXPECT_THAT(text, HasSubstr("## `optim.schedule`\n"));
  EXPECT_THAT(text, HasSubstr("Where to start \\| from."));
}

}  // namespace
}  // namespace kamerton::config
