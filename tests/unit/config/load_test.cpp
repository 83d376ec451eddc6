// SPDX-License-Identifier: Apache-2.0
#include "kamerton/config/load.h"

#include <filesystem>
#include <fstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kamerton/core/error.h"

#include "unit/config/sample_config.h"

namespace kamerton::config {
namespace {

using sample::Config;
using testing::AllOf;
using testing::HasSubstr;

Config load(std::string_view text, const std::vector<std::string>& overrides = {}) {
  Document document = Document::from_text(text, "run.yaml");
  for (const std::string& assignment : overrides) {
    document.set(assignment);
  }
  Config config;
  document.fill(config);
  return config;
}

std::string fault_of(std::string_view text, const std::vector<std::string>& overrides = {}) {
  try {
    load(text, overrides);
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Config);
    return error.what();
  }
  return "no error";
}

TEST(Document, KeepsDefaultsWhenNothingIsGiven) {
  EXPECT_EQ(load(""), Config());
  EXPECT_EQ(load("---\n"), Config());
  EXPECT_EQ(load("# nothing\noptim:\n"), Config());
}

TEST(Document, FillsEveryKindOfKnob) {
  const Config config = load(
      "name: 2024\nfast: true\nsteps: 7\ntargets: [k_proj, \"true\"]\nseed: 3\nclip: null\ninit: "
      "some dir/x\n"
      "optim:\n  lr: 1e-3\n  betas: [0.5, 1]\n  schedule: {kind: linear, warmup: 0}\n"
      "sources:\n  - path: z.jsonl\n  - {path: y.jsonl, weight: .5}\n");

  EXPECT_EQ(config.name, "2024");
  EXPECT_TRUE(config.fast);
  EXPECT_EQ(config.steps, 7);
  EXPECT_EQ(config.targets, (std::vector<std::string>{"k_proj", "true"}));
  EXPECT_EQ(config.seed, 3);
  EXPECT_EQ(config.clip, std::nullopt);
  EXPECT_EQ(config.init, "some dir/x");
  EXPECT_EQ(config.optim.lr, 1e-3);
  EXPECT_EQ(config.optim.betas, (std::vector<double>{0.5, 1.0}));
  EXPECT_EQ(config.optim.schedule.kind, "linear");
  EXPECT_EQ(config.optim.schedule.warmup, 0);
  ASSERT_EQ(config.sources.size(), 2);
  EXPECT_EQ(config.sources[0].weight,
            1.0);  // the element's own default, not that of the list's default
  EXPECT_EQ(config.sources[1].weight, 0.5);
}

TEST(Document, NamesPlaceAndNearestKeyForAnUnknownKey) {
  EXPECT_THAT(
      fault_of("name: x\noptim:\n  learnrate: 1\n  lr_: 2\n"),
      HasSubstr("run.yaml:3:3: unknown key 'optim.learnrate'; allowed lr, betas, schedule"));
  EXPECT_THAT(fault_of("stpes: 3\n"), HasSubstr("run.yaml:1:1: unknown key 'stpes'; try 'steps'"));
  EXPECT_THAT(fault_of("sources:\n- pth: x\n"),
              HasSubstr("run.yaml:2:3: unknown key 'sources.0.pth'; try 'sources.0.path'"));
  EXPECT_THAT(fault_of("optim.lr: 1\n"),
              AllOf(HasSubstr("unknown key 'optim.lr': dots"), HasSubstr("try optim: {lr: ...}")));
}

TEST(Document, SaysWhereAKeyOfAnotherSectionOrAnotherProgramBelongs) {
  EXPECT_THAT(fault_of("kind: linear\n"),
              HasSubstr("unknown key 'kind'; try 'optim.schedule.kind'"));
  EXPECT_THAT(fault_of("schedule: {kind: linear}\n"),
              HasSubstr("unknown key 'schedule'; try 'optim.schedule'"));
  EXPECT_THAT(fault_of("optim: {seed: 1}\n"), HasSubstr("unknown key 'optim.seed'; try 'seed'"));
  EXPECT_THAT(fault_of("weight: 1\n"), HasSubstr("try 'sources.<i>.weight'"));
  EXPECT_THAT(fault_of("optim: {stes: 1, kind: a}\n"),
              HasSubstr("unknown key 'optim.stes'; allowed"))
      << "near ones in other sections are guesses";

  const std::vector<NameElsewhere> elsewhere = {{"learning_rate", "optim.lr"}};
  Config config;
  const auto fault = [&](const std::string& text) -> std::string {
    try {
      Document::from_text(text, "run.yaml").fill(config, elsewhere);
    } catch (const core::Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_THAT(fault("learning_rate: 1\n"),
              HasSubstr("unknown key 'learning_rate'; try 'optim.lr'"));
  EXPECT_THAT(fault("optim: {learning_rate: 1}\n"), HasSubstr("try 'optim.lr'"));
  EXPECT_THAT(fault("optim: {kind: a}\n"), HasSubstr("try 'optim.schedule.kind'"));
}

TEST(Document, NamesWhatWasFoundAndWhatIsAllowed) {
  EXPECT_THAT(fault_of("steps: many\n"),
              HasSubstr("run.yaml:1:8: steps has a value that is not allowed; got the text many; "
                        "allowed an integer from 1 to 1000000000"));
  EXPECT_THAT(fault_of("steps: 2.5\n"), HasSubstr("got the number 2.5"));
  EXPECT_THAT(fault_of("steps: \"7\"\n"),
              AllOf(HasSubstr("got the quoted text \"7\""), HasSubstr("without quotes")));
  EXPECT_THAT(fault_of("steps:\n"), HasSubstr("got nothing (null)"));
  EXPECT_THAT(fault_of("steps: [1]\n"), HasSubstr("got a list of 1"));
  EXPECT_THAT(fault_of("steps: {a: 1}\n"), HasSubstr("got a section with 1 keys"));
  EXPECT_THAT(
      fault_of("optim: 3\n"),
      HasSubstr("optim has a value that is not allowed; got the integer 3; allowed a section"));
  EXPECT_THAT(fault_of("targets: q_proj\n"), HasSubstr("try [q_proj]"));
  EXPECT_THAT(fault_of("sources: {path: x}\n"), HasSubstr("allowed a list of sections"));
  EXPECT_THAT(fault_of("sources: [x]\n"),
              HasSubstr("sources.0 has a value that is not allowed; got the text x"));
  EXPECT_THAT(fault_of("name: true\n"),
              AllOf(HasSubstr("got true; allowed text"), HasSubstr("\"true\" in quotes")));
  EXPECT_THAT(fault_of("- a\n"),
              HasSubstr("the configuration has a value that is not allowed; got a list of 1"));
}

TEST(Document, ReadsScalarsStrictly) {
  for (const char* value : {"yes", "on", "True", "1", "\"true\""}) {
    EXPECT_THAT(fault_of(std::string("fast: ") + value + "\n"), HasSubstr("allowed true or false"))
        << value;
  }
  for (const char* value :
       {"010", "0x10", "0o7", "1_000", "1e3", "--1", "+", "9223372036854775808", "1 2"}) {
    EXPECT_THAT(fault_of(std::string("steps: ") + value + "\n"), HasSubstr("allowed an integer"))
        << value;
  }
  for (const char* value : {".nan",
                            ".inf",
                            "-.inf",
                            "nan",
                            "1e999",
                            "0x1p3",
                            "1.2.3",
                            ".",
                            "e5",
                            "1e",
                            "00.5",
                            "1,5"}) {
    EXPECT_THAT(fault_of(std::string("optim: {lr: ") + value + "}\n"), Not(HasSubstr("no error")))
        << value;
  }
  EXPECT_EQ(load("steps: +12\n").steps, 12);
}

TEST(Document, EnforcesRangesAndChoices) {
  EXPECT_THAT(fault_of("steps: 0\n"),
              HasSubstr("got the integer 0; allowed an integer from 1 to 1000000000"));
  EXPECT_THAT(fault_of("optim: {lr: 0}\n"), HasSubstr("allowed a number > 0 and <= 1"));
  EXPECT_THAT(fault_of("optim: {lr: 1.01}\n"), HasSubstr("optim.lr"));
  EXPECT_THAT(fault_of("clip: 0\n"), HasSubstr("allowed a number > 0"));
  EXPECT_THAT(fault_of("seed: -1\n"), HasSubstr("allowed an integer >= 0"));
  EXPECT_THAT(fault_of("optim: {betas: [0.9, 1.5]}\n"), HasSubstr("optim.betas.1"));
  EXPECT_THAT(fault_of("optim: {schedule: {kind: cosin}}\n"),
              HasSubstr("allowed one of cosine, linear, constant; try cosine"));
}

TEST(Document, RefusesDuplicateKeysAliasesTagsAndSecondDocuments) {
  EXPECT_THAT(fault_of("steps: 1\nname: x\nsteps: 2\n"),
              AllOf(HasSubstr("run.yaml:3:1: the key 'steps' appears twice"), HasSubstr("line 1")));
  EXPECT_THAT(fault_of("name: &a x\ninit: *a\n"), HasSubstr("run.yaml:2:7: aliases"));
  EXPECT_THAT(fault_of("steps: !!int 3\n"), HasSubstr("tags are not supported"));
  EXPECT_THAT(fault_of("steps: 1\n---\nsteps: 2\n"), HasSubstr("more than one YAML document"));
  EXPECT_THAT(fault_of("[a, b]: 1\n"), HasSubstr("cannot be a key"));
  EXPECT_THAT(fault_of(": 1\n"), HasSubstr("a key is missing"));
}

TEST(Document, RefusesHostileText) {
  EXPECT_THAT(fault_of("name: [x\nsteps: 1\n"), HasSubstr("run.yaml:"));
  EXPECT_THAT(fault_of("name:\n\t- x\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(fault_of("name: \"\xff\"\n"), HasSubstr("run.yaml:1:8: the text is not valid UTF-8"));
  EXPECT_THAT(fault_of("name: \"\xed\xa0\x80\"\n"), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(fault_of(std::string("na\0me: x\n", 9)),
              HasSubstr("run.yaml:1:3: a control character"));
  EXPECT_THAT(fault_of("name: " + std::string(1 << 20, 'x')), HasSubstr("too long"));
  EXPECT_THAT(fault_of(std::string(200, '[')), HasSubstr("nested too deep"));
  EXPECT_THAT(fault_of(std::string(1'000'000, '[')), HasSubstr("nested too deep"));
  EXPECT_THAT(fault_of(std::string(1'000'000, '{')), HasSubstr("run.yaml"));
  std::string dashes;
  for (int i = 0; i < 1000; ++i) {
    dashes += "- ";
  }
  EXPECT_THAT(fault_of(dashes + "x"), HasSubstr("nested too deep"));
}

TEST(Document, AppliesOverridesInOrder) {
  const Config config = load("optim: {lr: 0.5}\nsources:\n- path: z\n",
                             {"optim.lr=0.1",
                              "optim.lr=0.2",
                              "optim.schedule.kind=linear",
                              "name=\"a=b\"",
                              "targets=[x]",
                              "sources.0.weight=4",
                              "sources.1.path=new",
                              "clip=null"});

  EXPECT_EQ(config.optim.lr, 0.2);
  EXPECT_EQ(config.optim.schedule.kind, "linear");
  EXPECT_EQ(config.name, "a=b");
  EXPECT_EQ(config.targets, std::vector<std::string>{"x"});
  EXPECT_EQ(config.clip, std::nullopt);
  ASSERT_EQ(config.sources.size(), 2);
  EXPECT_EQ(config.sources[0], (sample::Source{"z", 4.0}));
  EXPECT_EQ(config.sources[1], (sample::Source{"new", 1.0}));
}

TEST(Document, OverridesReachIntoDefaultLists) {
  const Config config = load("", {"sources.1.weight=9", "sources.2.path=c"});

  ASSERT_EQ(config.sources.size(), 3);
  EXPECT_EQ(config.sources[0], (sample::Source{"a.jsonl", 2.0}));
  EXPECT_EQ(config.sources[1], (sample::Source{"b.jsonl", 9.0}));
  EXPECT_EQ(config.sources[2], (sample::Source{"c", 1.0}));
  EXPECT_THAT(fault_of("", {"sources.5.path=c"}),
              HasSubstr("--set sources.5.path: sources has no element 5; allowed 0 to 2"));
}

TEST(Document, NamesTheOverrideInItsErrors) {
  EXPECT_THAT(
      fault_of("", {"optim.lr=fast"}),
      HasSubstr("--set optim.lr: optim.lr has a value that is not allowed; got the text fast"));
  EXPECT_THAT(fault_of("", {"optim.lrr=1"}),
              HasSubstr("--set optim.lrr: unknown key 'optim.lrr'; try 'optim.lr'"));
  EXPECT_THAT(fault_of("", {"steps=[1"}), HasSubstr("--set steps: not valid YAML"));
  EXPECT_THAT(fault_of("steps: 3\n", {"steps.x=1"}),
              HasSubstr("--set steps.x: the key 'x' is below a value"));
  EXPECT_THAT(fault_of("sources: []\n", {"sources.x.path=1"}),
              HasSubstr("no such element of a list; got x"));
  for (const char* bad : {"steps", "=1", ".steps=1", "optim..lr=1", ""}) {
    EXPECT_THAT(fault_of("", {bad}), HasSubstr("not an assignment")) << bad;
  }
}

TEST(Document, ReadsAFileAndNamesAMissingOne) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("kamerton_load_test_" + std::to_string(::getpid()) + ".yaml");
  std::ofstream(path) << "steps: 5\n";
  Config config;
  Document::from_file(path.string()).fill(config);
  std::filesystem::remove(path);

  EXPECT_EQ(config.steps, 5);
  for (const std::string& missing :
       {path.string(), std::filesystem::temp_directory_path().string()}) {
    EXPECT_THROW(
        {
          try {
            Document::from_file(missing);
          } catch (const core::Error& error) {
            EXPECT_EQ(error.kind(), core::ErrorKind::Config);
            EXPECT_THAT(error.what(), HasSubstr(missing));
            throw;
          }
        },
        core::Error);
  }
}

TEST(Nearest, FindsTyposButNotStrangers) {
  const std::vector<std::string> names = {"steps", "learning_rate", "seed", "clip"};

  EXPECT_EQ(nearest("stpes", names), "steps");
  EXPECT_EQ(nearest("learningrate", names), "learning_rate");
  EXPECT_EQ(nearest("SEED", names), "seed");
  EXPECT_EQ(nearest("cilp", names), "clip");
  EXPECT_EQ(nearest("tokenizer", names), "");
  EXPECT_EQ(nearest("", names), "");
  EXPECT_EQ(nearest("x", {}), "");
  EXPECT_EQ(nearest(std::string(100'000, 'x'), names), "");
}

}  // namespace
}  // namespace kamerton::config
