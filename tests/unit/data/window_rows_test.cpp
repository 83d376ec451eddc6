// SPDX-License-Identifier: Apache-2.0
// Rows planned over windows: best-fit packing, wrapping, grouping by length.
#include "window_rows.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <numeric>
#include <set>
#include <sstream>

#include <gmock/gmock.h>

#include "kamerton/data/stream.h"

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using core::Json;
using ::testing::HasSubstr;

constexpr uint64_t kSeed = 3;

struct Mode {
  const char* strategy;
  bool packing;
  bool group;
};
const std::vector<Mode> kModes = {{"bfd", true, false},
                                  {"bfd_split", true, false},
                                  {"wrapped", true, false},
                                  {"next_fit", false, true}};

using Row = std::pair<int64_t, std::vector<int64_t>>;

/// Documents of a step: sample id and tokens.
std::vector<Row> documents_of(const std::vector<Batch>& batches) {
  std::vector<Row> result;
  for (const Batch& batch : batches) {
    for (size_t d = 0; d + 1 < batch.document_offsets.size(); ++d) {
      result.emplace_back(
          batch.sample_ids[d],
          std::vector<int64_t>(batch.tokens.begin() + batch.document_offsets[d],
                               batch.tokens.begin() + batch.document_offsets[d + 1]));
    }
  }
  return result;
}

class WindowStreams : public ::testing::Test {
 protected:
  void write(int count) {
    std::string bytes;
    for (int i = 0; i < count; ++i) {
      bytes +=
          "{\"text\":\"" + std::to_string(10'000 + i) + std::string(i * 37 % 90, 'x') + "\"}\n";
    }
    config_.train = {scratch_.write("a.jsonl", bytes)};
    config_.sequence_length = 64;
    config_.batch_rows = 8;
    config_.micro_batch_rows = 1;
  }
  void set(const Mode& mode) {
    config_.packing = mode.packing;
    config_.packing_strategy = mode.strategy;
    config_.group_by_length = mode.group;
  }
  TrainStream open(int rank = 0, int world_size = 1) const {
    return {config_, kSeed, bundle_, rank, world_size, 4096};
  }
  std::vector<TrainStream> open_all(int world_size) const {
    std::vector<TrainStream> ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      ranks.push_back(open(rank, world_size));
    }
    return ranks;
  }
  static std::vector<Row> step_of(std::vector<TrainStream>& ranks) {
    std::vector<Row> all;
    for (TrainStream& rank : ranks) {
      const auto part = documents_of(rank.next());
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
  static Json merged(const std::vector<TrainStream>& ranks) {
    std::vector<Json> states;
    for (const TrainStream& rank : ranks) {
      states.push_back(rank.state());
    }
    return merge_states(states);
  }

  Scratch scratch_;
  DataConfig config_;
  text::TokenizerBundle bundle_ = byte_bundle(nullptr);
};

TEST_F(WindowStreams, RowsDoNotDependOnTheWorldSizeOrOnKnownLengths) {
  write(300);
  for (const Mode& mode : kModes) {
    SCOPED_TRACE(mode.strategy);
    set(mode);
    auto one = open_all(1);
    auto two = open_all(2);
    auto four = open_all(4);
    for (TrainStream& rank : four) {
      rank.use_lengths(rank.dataset().lengths(0, rank.dataset().size()));
    }
    for (int step = 0; step < 80; ++step) {
      const auto expected = step_of(one);
      ASSERT_EQ(step_of(two), expected) << step;
      ASSERT_EQ(step_of(four), expected) << step;
    }
    EXPECT_EQ(merged(one), merged(four));
    EXPECT_GT(one[0].epoch(), 1.5);
    EXPECT_NEAR(one[0].epoch(), four[0].epoch(), 0.1);
  }
}

TEST_F(WindowStreams, ResumeExactlyOnAnyWorldSize) {
  write(150);
  for (const Mode& mode : kModes) {
    SCOPED_TRACE(mode.strategy);
    set(mode);
    auto whole = open_all(1);
    auto first = open_all(2);
    for (int step = 0; step < 17; ++step) {
      ASSERT_EQ(step_of(first), step_of(whole));
    }
    const Json saved = core::parse_json(merged(first).dump(), "state");
    std::vector<std::vector<Row>> rest;
    for (int step = 0; step < 30; ++step) {
      rest.push_back(step_of(whole));
    }
    for (const int world_size : {1, 4}) {
      auto resumed = open_all(world_size);
      for (TrainStream& rank : resumed) {
        rank.next();
        rank.load_state(saved);
      }
      EXPECT_EQ(merged(resumed), saved);
      for (const auto& expected : rest) {
        ASSERT_EQ(step_of(resumed), expected) << world_size;
      }
    }
    Json other = saved;
    other["strategy"] = "else";
    TrainStream stream = open();
    EXPECT_THAT(error_of(ErrorKind::Data, [&] { stream.load_state(other); }),
                HasSubstr("'strategy' differs"));
  }
}

TEST_F(WindowStreams, AnEpochHoldsEveryTokenOnceInRowsThatAreNotTooLong) {
  write(200);
  config_.batch_rows = 1;
  for (const Mode& mode : kModes) {
    SCOPED_TRACE(mode.strategy);
    set(mode);
    TrainStream stream = open();
    const auto lengths = stream.dataset().lengths(0, 200);
    const int64_t steps = stream.steps_for_epochs(1.0, lengths);
    std::map<int64_t, int64_t> seen;
    int64_t tokens = 0;
    for (int64_t step = 0; step < steps; ++step) {
      const Batch batch = stream.next().front();
      ASSERT_LE(batch.tokens.size(), 64);
      for (size_t d = 0; d + 1 < batch.document_offsets.size(); ++d) {
        const int64_t end = batch.document_offsets[d + 1];
        EXPECT_EQ(batch.positions[batch.document_offsets[d]], 0);
        EXPECT_EQ(batch.targets[end - 1], kNoTarget);
        seen[batch.sample_ids[d] & ((int64_t{1} << 44) - 1)] += end - batch.document_offsets[d];
      }
      tokens += static_cast<int64_t>(batch.tokens.size());
    }
    EXPECT_EQ(tokens, std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
    EXPECT_EQ(seen.size(), 200);
    EXPECT_EQ(*std::max_element(lengths.begin(), lengths.end()), packing_splits(config_) ? 95 : 64);
  }
}

TEST_F(WindowStreams, BestFitRowsAreFuller) {
  write(400);
  const auto steps = [&](const Mode& mode) {
    set(mode);
    TrainStream stream = open();
    return stream.steps_for_epochs(1.0, stream.dataset().lengths(0, 400));
  };
  EXPECT_LT(steps(kModes[0]), steps({"next_fit", true, false}));
}

TEST_F(WindowStreams, GroupsHoldExamplesOfOneLength) {
  write(1600);
  set(kModes[3]);
  TrainStream stream = open();
  double spread = 0;
  std::set<int64_t> seen;
  std::vector<size_t> longest;
  for (int step = 0; step < 125; ++step) {
    std::vector<size_t> lengths;
    for (const auto& [id, tokens] : documents_of(stream.next())) {
      seen.insert(id);
      lengths.push_back(tokens.size());
    }
    const auto [low, high] = std::minmax_element(lengths.begin(), lengths.end());
    spread += static_cast<double>(*high - *low);
    longest.push_back(*high);
  }
  EXPECT_LT(spread / 125, 2.0);
  EXPECT_EQ(seen.size(), 1000);
  EXPECT_FALSE(std::is_sorted(longest.rbegin(), longest.rend())) << "updates come in random order";
}

TEST_F(WindowStreams, NothingUsableIsSaid) {
  const RowShape shape{.rows = 2, .first_lane = 0, .lane_count = 2, .sequence_length = 8};
  WindowRows rows(WindowStrategy::BestFit,
                  shape,
                  SampleOrder(Mixture(5), kSeed, true),
                  [](int64_t) { return Example{}; },
                  {});
  Batch batch;
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { rows.fill_row(0, batch); }),
              HasSubstr("no example that can be used"));
}

/// The rows of TRL's SFTTrainer for the fixture's conversations.
TEST_F(WindowStreams, RowsEqualTrl) {
  const auto shared = shared_folder();
  if (!shared || !std::filesystem::exists(*shared / "fixtures/sft/prepare.json")) {
    GTEST_SKIP() << "KAMERTON_SHARED has no fixtures/sft/prepare.json";
  }
  const auto slurp = [&](const char* name) {
    std::ifstream file(*shared / "fixtures/sft" / name);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  };
  text::TokenizerBundle bundle = text::load_bundle(*shared / "fixtures/sft/tokenizer_chatml");
  Json special = Json::object();
  for (const auto& [name, value] : bundle.special_tokens) {
    special[name] = value;
  }
  bundle.chat_template = text::ChatTemplate::from_text(slurp("chatml.jinja"), special);
  int compared = 0;
  const Json all = core::parse_json(slurp("prepare.json"), "prepare.json");
  for (const Json& one : all["cases"]) {
    const auto name = one["name"].get<std::string>();
    if (!name.starts_with("packing_")) {
      continue;
    }
    SCOPED_TRACE(name);
    std::string bytes;
    for (const Json& example : one["examples"]) {
      bytes += example.dump() + "\n";
    }
    DataConfig config;
    config.train = {scratch_.write("chat.jsonl", bytes)};
    config.sequence_length = 64;
    config.shuffle = false;
    config.batch_rows = 1;
    config.packing = true;
    config.packing_strategy = one["config"]["packing_strategy"].get<std::string>();
    config.on_no_target = "skip";
    config.require_end_token = false;
    TrainStream stream(config, kSeed, bundle, 0, 1, 4096);
    for (const Json& row : one["expected"]) {
      const Batch batch = stream.next().front();
      EXPECT_EQ(Json(batch.tokens), row["input_ids"]);
      std::vector<int64_t> labels = batch.targets;
      labels.insert(labels.begin(), kNoTarget);
      labels.pop_back();
      // The first token of a sequence has nothing before it that could predict it: TRL's collator
      // clears its label, which the prepared rows still have where a long example goes on.
      Json expected = row["labels"];
      for (size_t n = 0; n < batch.positions.size(); ++n) {
        if (batch.positions[n] == 0) {
          expected[n] = kNoTarget;
        }
      }
      EXPECT_EQ(Json(labels), expected);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 20);
}

}  // namespace
}  // namespace kamerton::data
