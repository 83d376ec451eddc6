// SPDX-License-Identifier: Apache-2.0
// Mixtures of sources and the split by hash.
#include "mixture.h"

#include <algorithm>
#include <map>
#include <set>

#include <gmock/gmock.h>

#include "kamerton/data/dataset.h"
#include "kamerton/data/stream.h"

#include "selection.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kSeed = 5;

std::vector<int64_t> epoch_of(const Mixture& mixture, int64_t epoch, bool shuffle = true) {
  std::vector<int64_t> result;
  for (int64_t i = 0; i < mixture.size(); ++i) {
    result.push_back(mixture.example(epoch, i, kSeed, shuffle));
  }
  return result;
}

TEST(Mixture, WeightsAreSharesOfEachEpoch) {
  const std::vector<MixturePart> parts = {{.size = 10, .weight = 3.0}, {.size = 90, .weight = 1.0}};
  const Mixture mixture(parts, 1.0);
  EXPECT_EQ(mixture.size(), 100);
  EXPECT_EQ(mixture.count(0), 75);
  std::map<int64_t, int> seen;
  for (int64_t epoch = 0; epoch < 4; ++epoch) {
    const auto drawn = epoch_of(mixture, epoch);
    EXPECT_EQ(std::count_if(drawn.begin(), drawn.end(), [](int64_t i) { return i < 10; }), 75);
    for (const int64_t example : drawn) {
      ++seen[example];
    }
  }
  // 300 draws of 10 examples, 100 of 90: each as often as the others, or once more.
  for (int64_t i = 0; i < 10; ++i) {
    EXPECT_EQ(seen[i], 30);
  }
  for (int64_t i = 10; i < 100; ++i) {
    EXPECT_THAT(seen[i], ::testing::AnyOf(1, 2)) << i;
  }
}

TEST(Mixture, TemperatureEvensSizesOut) {
  const std::vector<MixturePart> parts = {{.size = 100}, {.size = 10'000}};
  EXPECT_EQ(Mixture(parts, 1.0).count(0), 100);
  EXPECT_EQ(Mixture(parts, 2.0).count(0), 918);  // 10 / (10 + 100) of 10,100
  EXPECT_NEAR(static_cast<double>(Mixture(parts, 1000.0).count(0)), 5038, 20);
  const std::vector<MixturePart> tiny = {{.size = 1, .weight = 1e-9}, {.size = 99, .weight = 1.0}};
  EXPECT_EQ(Mixture(tiny, 1.0).count(0), 1);  // never nothing
  EXPECT_EQ(Mixture(tiny, 1.0).count(1), 99);
}

TEST(Mixture, WithoutWeightsItIsAPermutationOfAll) {
  const std::vector<MixturePart> parts = {{.size = 7}, {.size = 30}};
  const Mixture mixture(parts, 1.0);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    const auto drawn = epoch_of(mixture, epoch);
    EXPECT_EQ(std::set<int64_t>(drawn.begin(), drawn.end()).size(), 37);
    EXPECT_EQ(drawn, epoch_of(Mixture(37), epoch));
  }
  EXPECT_THAT(epoch_of(Mixture(4), 3, false), ElementsAre(0, 1, 2, 3));
}

TEST(Split, DependsOnTheRecordAloneAndHasTheShareAskedFor) {
  int validation = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string record = "{\"text\":\"" + std::to_string(i) + "\"}";
    const bool small = is_validation(record, 0.05);
    validation += small ? 1 : 0;
    EXPECT_TRUE(!small || is_validation(record, 0.2)) << "a larger share only adds";
  }
  EXPECT_NEAR(validation, 1000, 100);
}

struct Mixed : ::testing::Test {
  std::string lines(const char* name, int count, const std::string& word) {
    std::string bytes;
    for (int i = 0; i < count; ++i) {
      bytes += "{\"text\":\"" + word + std::to_string(1000 + i) + "\"}\n";
    }
    return scratch.write(name, bytes);
  }
  std::set<std::string> texts(const Dataset& set) {
    std::set<std::string> all;
    for (int64_t i = 0; i < set.size(); ++i) {
      all.insert(set.record(i).completion);
    }
    return all;
  }
  Dataset train() { return open_train(config, bundle, 4096); }

  Scratch scratch;
  DataConfig config;
  text::TokenizerBundle bundle = byte_bundle(nullptr);
};

TEST_F(Mixed, SidesAreDisjointWholeAndStableWhenDataIsAppended) {
  config.validation_fraction = 0.2;
  config.train = {lines("a.jsonl", 300, "a")};
  const auto train_before = texts(train());
  const auto held_before = texts(open_eval(config, bundle, 4096));
  EXPECT_EQ(train_before.size() + held_before.size(), 300);
  EXPECT_NEAR(static_cast<double>(held_before.size()), 60, 25);
  config.train = {lines("a.jsonl", 500, "a"), lines("b.jsonl", 100, "b")};
  const auto train_after = texts(train());
  const auto held_after = texts(open_eval(config, bundle, 4096));
  EXPECT_EQ(train_after.size() + held_after.size(), 600);
  EXPECT_TRUE(std::includes(
      train_after.begin(), train_after.end(), train_before.begin(), train_before.end()));
  EXPECT_TRUE(
      std::includes(held_after.begin(), held_after.end(), held_before.begin(), held_before.end()));
}

TEST_F(Mixed, TheTableOnDiskHoldsTheSameRecords) {
  const auto read = [](int64_t i) { return "record " + std::to_string(i); };
  Selection::Options options;
  options.fraction = 0.3;
  options.side = Side::Validation;
  options.key = "k";
  options.folder = scratch / "index";
  const Selection memory = Selection::build(1000, read, options);
  options.small_records = 0;
  const Selection disk = Selection::build(1000, read, options);
  ASSERT_EQ(memory.size(), disk.size());
  for (int64_t i = 0; i < memory.size(); ++i) {
    EXPECT_EQ(memory[i], disk[i]);
  }
}

TEST_F(Mixed, SourcesHaveTheirOwnLayoutLimitAndColumns) {
  SourceConfig text;
  text.name = "words";
  text.files = {lines("a.jsonl", 30, "a")};
  text.max_examples = 10;
  SourceConfig pairs;
  pairs.files = {scratch.write("p.csv", "q,a\nask,answer\n")};
  pairs.columns.prompt = "q";
  pairs.columns.completion = "a";
  config.sources = {text, pairs};
  const Dataset set = train();
  ASSERT_EQ(set.size(), 11);
  EXPECT_EQ(set.record(9).completion, "a1009");
  EXPECT_EQ(set.record(10).prompt, "ask");
  EXPECT_EQ(set.source_of(9), 0);
  EXPECT_EQ(set.source_of(10), 1);
  EXPECT_EQ(set.summary().layout, "text, prompt_completion");
  EXPECT_THAT(set.summary().text(),
              AllOf(HasSubstr("source words: 10 examples, layout text (found), 90.9 %"),
                    HasSubstr("p.csv: 1 examples, layout prompt_completion")));
  EXPECT_THAT(set.get(10).targets, Contains('a'));
  EXPECT_EQ(set.get(10).targets[0], kNoTarget);  // the prompt is not trained
}

TEST_F(Mixed, WeightedStreamsAreTheSameOnAnyNumberOfRanksAndResume) {
  SourceConfig a;
  a.files = {lines("a.jsonl", 20, "a")};
  a.weight = 1;
  SourceConfig b;
  b.files = {lines("b.jsonl", 60, "b")};
  b.weight = 1;
  config.sources = {a, b};
  config.batch_rows = 4;
  const auto ids = [](const std::vector<Batch>& batches) {
    std::vector<int64_t> all;
    for (const Batch& batch : batches) {
      all.insert(all.end(), batch.tokens.begin(), batch.tokens.end());
    }
    return all;
  };
  TrainStream one(config, kSeed, bundle, 0, 1, 4096);
  TrainStream first(config, kSeed, bundle, 0, 2, 4096);
  TrainStream second(config, kSeed, bundle, 1, 2, 4096);
  int from_a = 0;
  for (int step = 0; step < 20; ++step) {  // an epoch
    const auto expected = ids(one.next());
    auto joined = ids(first.next());
    const auto rest = ids(second.next());
    joined.insert(joined.end(), rest.begin(), rest.end());
    EXPECT_EQ(joined, expected);
    from_a += static_cast<int>(std::count(expected.begin(), expected.end(), 'a'));
  }
  EXPECT_EQ(from_a, 40);
  TrainStream resumed(config, kSeed, bundle, 0, 1, 4096);
  resumed.load_state(one.state());
  EXPECT_EQ(ids(resumed.next()), ids(one.next()));
  config.sources[1].weight = 2;
  TrainStream other(config, kSeed, bundle, 0, 1, 4096);
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { other.load_state(one.state()); }),
              HasSubstr("'digest' differs"));
}

TEST_F(Mixed, SettingsThatExcludeEachOtherAreRefused) {
  const auto refused = [&] { return error_of(ErrorKind::Config, [&] { train(); }); };
  config.train = {lines("a.jsonl", 20, "a")};
  config.eval = config.train;
  config.validation_fraction = 0.1;
  EXPECT_THAT(refused(), HasSubstr("data.eval and data.validation_fraction"));
  config.validation_fraction = 0;
  config.sources.resize(2);
  EXPECT_THAT(refused(), HasSubstr("data.train and data.sources"));
  config.train.clear();
  EXPECT_THAT(refused(), HasSubstr("source 0 of data.sources has no files"));
  config.sources[0].files = config.eval;
  config.sources[1].files = {lines("b.jsonl", 20, "b")};
  config.sources[0].weight = 1;
  EXPECT_THAT(refused(), HasSubstr("some have none"));
  config.sources[1].weight = 1;
  config.mixture_temperature = 2;
  EXPECT_THAT(refused(), HasSubstr("data.mixture_temperature"));
  config.mixture_temperature = 1;
  config.validation_fraction = 1e-9;
  config.eval.clear();
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { open_eval(config, bundle, 4096); }),
              HasSubstr("no record falls on the validation side"));
}

}  // namespace
}  // namespace kamerton::data
