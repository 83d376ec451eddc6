// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/stream.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include <gmock/gmock.h>

#include "prefetcher.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using core::Json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kSeed = 11;

/// A document of a batch: its sample id and tokens.
using Document = std::pair<int64_t, std::vector<int64_t>>;

std::vector<Document> documents_of(const Batch& batch) {
  std::vector<Document> result;
  for (size_t d = 0; d + 1 < batch.document_offsets.size(); ++d) {
    result.emplace_back(batch.sample_ids[d],
                        std::vector<int64_t>(batch.tokens.begin() + batch.document_offsets[d],
                                             batch.tokens.begin() + batch.document_offsets[d + 1]));
  }
  return result;
}

/// Everything that a rank sees in a step, in order.
std::vector<Document> documents_of(const std::vector<Batch>& batches) {
  std::vector<Document> result;
  for (const Batch& batch : batches) {
    const auto part = documents_of(batch);
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

class TrainStreams : public ::testing::Test {
 protected:
  /// `count` texts of different lengths, each naming its number.
  void write(int count, const std::string& extra = "") {
    std::string bytes;
    for (int i = 0; i < count; ++i) {
      bytes += "{\"text\":\"" + std::to_string(1000 + i) + std::string(i * 7 % 23, 'x') + "\"}\n";
    }
    config_.train = {scratch_.write("a.jsonl", bytes + extra)};
    config_.sequence_length = 64;
    config_.batch_rows = 8;
    config_.micro_batch_rows = 1;
  }
  TrainStream open(int rank = 0, int world_size = 1) const {
    return {config_, kSeed, bundle_, rank, world_size, 4096};
  }
  /// The rows of all ranks, joined in order of rank.
  std::vector<Document> step_of(std::vector<TrainStream>& ranks) const {
    std::vector<Document> all;
    for (TrainStream& rank : ranks) {
      const auto part = documents_of(rank.next());
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
  std::vector<TrainStream> open_all(int world_size) const {
    std::vector<TrainStream> ranks;
    for (int rank = 0; rank < world_size; ++rank) {
      ranks.push_back(open(rank, world_size));
    }
    return ranks;
  }
  static Json merged(const std::vector<TrainStream>& ranks) {
    std::vector<Json> states;
    for (const TrainStream& rank : ranks) {
      states.push_back(rank.state());
    }
    std::reverse(states.begin(), states.end());  // in any order
    return merge_states(states);
  }

  Scratch scratch_;
  DataConfig config_;
  text::TokenizerBundle bundle_ = byte_bundle(nullptr);
};

TEST_F(TrainStreams, RowsDoNotDependOnTheWorldSize) {
  write(50);
  for (const bool packing : {false, true}) {
    config_.packing = packing;
    auto one = open_all(1);
    auto two = open_all(2);
    auto four = open_all(4);
    for (int step = 0; step < 20; ++step) {
      const auto expected = step_of(one);
      EXPECT_EQ(step_of(two), expected) << step;
      EXPECT_EQ(step_of(four), expected) << step;
    }
    EXPECT_EQ(merged(one), merged(four));
    EXPECT_GT(one[0].epoch(), 3.0);
  }
}

TEST_F(TrainStreams, MicroBatchesCutTheSameRows) {
  write(30);
  config_.packing = true;
  TrainStream fine = open();
  config_.micro_batch_rows = 4;
  TrainStream coarse = open();
  for (int step = 0; step < 5; ++step) {
    const auto a = fine.next();
    const auto b = coarse.next();
    EXPECT_EQ(a.size(), 8);
    EXPECT_EQ(b.size(), 2);
    EXPECT_EQ(b[0].rows, 4);
    EXPECT_EQ(documents_of(a), documents_of(b));
  }
}

TEST_F(TrainStreams, EachEpochHoldsEveryExampleOnceInAnotherOrder) {
  write(40);
  TrainStream stream = open();
  std::vector<std::vector<int64_t>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> firsts;
    for (int step = 0; step < 5; ++step) {
      for (const auto& [id, tokens] : documents_of(stream.next())) {
        EXPECT_EQ(id / 40, epoch);
        firsts.push_back((tokens[2] - '0') * 10 + tokens[3] - '0');
      }
    }
    orders.push_back(firsts);
    EXPECT_EQ(std::set<int64_t>(firsts.begin(), firsts.end()).size(), 40);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  config_.shuffle = false;
  TrainStream plain = open();
  const auto documents = documents_of(plain.next());
  for (int64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(documents[i].first, i);
    EXPECT_EQ(documents[i].second[3], '0' + i);
  }
}

TEST_F(TrainStreams, PackedRowsAreFullAndNoExampleIsSplitOrLost) {
  write(60);
  config_.packing = true;
  TrainStream stream = open();
  std::map<int64_t, int> seen;
  for (int step = 0; step < 12; ++step) {
    for (const Batch& batch : stream.next()) {
      ASSERT_LE(batch.tokens.size(), 64);
      ASSERT_EQ(batch.positions.size(), batch.tokens.size());
      for (size_t d = 0; d + 1 < batch.document_offsets.size(); ++d) {
        const int64_t begin = batch.document_offsets[d];
        const int64_t end = batch.document_offsets[d + 1];
        EXPECT_EQ(batch.positions[begin], 0);
        EXPECT_EQ(batch.positions[end - 1], end - begin - 1);
        EXPECT_EQ(batch.targets[end - 1], kNoTarget);  // nothing trained across documents
        EXPECT_EQ(batch.tokens[end - 1], 256);
        ++seen[batch.sample_ids[d]];
      }
      EXPECT_EQ(batch.target_count,
                static_cast<int64_t>(batch.tokens.size() - batch.sample_ids.size()));
    }
  }
  for (const auto& [id, count] : seen) {
    EXPECT_EQ(count, 1) << id;
  }
  // Lane 0 consumes 0, 8, 16, ... without a gap.
  for (int64_t k = 0; k < 80; k += 8) {
    EXPECT_EQ(seen.count(k), 1) << k;
  }
}

TEST_F(TrainStreams, ResumesExactlyOnAnyWorldSize) {
  write(33);
  for (const bool packing : {false, true}) {
    config_.packing = packing;
    auto whole = open_all(1);
    auto first = open_all(2);
    for (int step = 0; step < 7; ++step) {
      EXPECT_EQ(step_of(first), step_of(whole));
    }
    // As text, the way a checkpoint keeps it.
    const Json saved = core::parse_json(merged(first).dump(), "state");
    std::vector<std::vector<Document>> rest;
    for (int step = 0; step < 9; ++step) {
      rest.push_back(step_of(whole));
    }
    for (const int world_size : {1, 2, 4, 8}) {
      auto resumed = open_all(world_size);
      for (TrainStream& rank : resumed) {
        rank.next();  // what was prepared ahead must not show
        rank.load_state(saved);
      }
      EXPECT_EQ(merged(resumed), saved);
      for (const auto& expected : rest) {
        EXPECT_EQ(step_of(resumed), expected) << world_size;
      }
    }
  }
}

TEST_F(TrainStreams, StatesOfOtherRunsAreRefused) {
  write(33);
  auto ranks = open_all(2);
  const Json good = merged(ranks);
  TrainStream one = open();
  const auto refused = [&](const Json& state, const char* message) {
    EXPECT_THAT(error_of(ErrorKind::Data, [&] { one.load_state(state); }), HasSubstr(message));
  };
  refused(ranks[1].state(), "lacks lanes of this rank");
  for (const char* key : {"seed", "size", "rows", "digest", "packing", "version"}) {
    Json other = good;
    other[key] = 12345;
    refused(other, key);
    other.erase(key);
    refused(other, key);
  }
  Json other = good;
  other["next"][3] = 4;
  refused(other, "lane 3 cannot stand at 4");
  other["next"] = "x";
  refused(other, "no list");
  other["next"] = Json::array({-1});
  refused(other, "no stream index");
  refused(Json::object(), "differs");
  const std::vector<Json> half = {ranks[0].state()};
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { merge_states(half); }),
              HasSubstr("lanes are missing"));
  const std::vector<Json> twice = {ranks[0].state(), ranks[0].state()};
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { merge_states(twice); }), HasSubstr("do not join"));
  one.load_state(good);
}

TEST_F(TrainStreams, PreparingAheadChangesNothing) {
  write(33);
  config_.packing = true;
  std::vector<std::vector<std::vector<Document>>> runs;
  for (const int64_t depth : {0, 1, 4}) {
    config_.prefetch = depth;
    TrainStream stream = open();
    auto& run = runs.emplace_back();
    for (int step = 0; step < 10; ++step) {
      run.push_back(documents_of(stream.next()));
    }
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
}

TEST_F(TrainStreams, ErrorsOfThePreparingThreadArriveInOrder) {
  write(100, "{\"text\":7}\n");  // neither checked nor in the sample of 64
  config_.check_bytes = 0;
  config_.shuffle = false;
  for (const int64_t depth : {0, 3}) {
    config_.prefetch = depth;
    TrainStream stream = open();
    for (int step = 0; step < 12; ++step) {
      stream.next();
    }
    for (int again = 0; again < 2; ++again) {
      EXPECT_THAT(error_of(ErrorKind::Data, [&] { stream.next(); }), HasSubstr("a.jsonl:101"));
    }
  }
}

TEST_F(TrainStreams, SkippedExamplesLeaveNoEmptyRows) {
  write(20, "{\"text\":7}\n{\"text\":8}\n");
  config_.on_bad_record = "skip";
  for (const bool packing : {false, true}) {
    config_.packing = packing;
    auto one = open_all(1);
    auto two = open_all(2);
    for (int step = 0; step < 10; ++step) {
      const auto expected = step_of(one);
      EXPECT_GE(expected.size(), 8);
      EXPECT_EQ(step_of(two), expected);
    }
  }
}

TEST_F(TrainStreams, RowsMustDivide) {
  write(20);
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { open(0, 3); }), HasSubstr("data.batch_rows = 6"));
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { open(0, 16); }), HasSubstr("data.batch_rows = 16"));
  config_.micro_batch_rows = 3;
  EXPECT_THAT(error_of(ErrorKind::Config, [&] { open(0, 2); }), HasSubstr("data.micro_batch_rows"));
}

TEST_F(TrainStreams, StepsOfEpochsConsumeThem) {
  write(53);
  const auto consumed = [&](int64_t steps) {
    TrainStream stream = open();
    int64_t count = 0;
    for (int64_t step = 0; step < steps; ++step) {
      count += static_cast<int64_t>(documents_of(stream.next()).size());
    }
    return count;
  };
  for (const bool packing : {false, true}) {
    config_.packing = packing;
    const TrainStream stream = open();
    const auto lengths = stream.dataset().lengths(0, stream.size());
    for (const double epochs : {0.5, 1.0, 3.0}) {
      const int64_t steps = steps_for_epochs(config_, kSeed, epochs, stream.size(), lengths, 64);
      const auto wanted = static_cast<int64_t>(epochs * 53 + 0.5);
      EXPECT_GE(consumed(steps), wanted) << packing << " " << epochs;
      EXPECT_LT(consumed(steps - 1), wanted) << packing << " " << epochs;
    }
  }
  DataConfig packed;
  EXPECT_EQ(steps_for_epochs(packed, 1, 2.0, 16, {}, 64), 4);
  packed.packing = true;
  const std::vector<int32_t> none(5, 0);
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { steps_for_epochs(packed, 1, 1, 5, none, 64); }),
              HasSubstr("no example that can be used"));
}

TEST_F(TrainStreams, EvaluationReadsEachExampleOnceWithEqualBatchesOnAllRanks) {
  write(21);
  config_.eval = config_.train;
  const EvalSet set = open_eval(config_, bundle_, 4096);
  for (const int world_size : {1, 2, 4}) {
    std::multiset<int64_t> seen;
    int64_t targets = 0;
    for (int rank = 0; rank < world_size; ++rank) {
      EvalStream stream(set, 3, rank, world_size);
      int64_t batches = 0;
      while (const auto batch = stream.next()) {
        ++batches;
        EXPECT_FALSE(batch->tokens.empty());
        targets += batch->target_count;
        if (batch->target_count > 0) {
          seen.insert(batch->sample_ids.begin(), batch->sample_ids.end());
        }
      }
      EXPECT_EQ(batches, stream.batches());
      stream.rewind();
      EXPECT_TRUE(stream.next().has_value());
    }
    EXPECT_EQ(seen.size(), 21);
    EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), 21);
    EXPECT_EQ(EvalStream(set, 3, 0, world_size).batches(),
              (21 + 3 * world_size - 1) / (3 * world_size));
    const auto lengths = set.lengths(0, 21);
    EXPECT_EQ(targets, std::accumulate(lengths.begin(), lengths.end(), 0) - 21);
  }
}

TEST(Prefetcher, StopsWhileTheMakerIsAhead) {
  int made = 0;
  Prefetcher<int> prefetcher([&] { return made++; }, 3);
  EXPECT_EQ(prefetcher.next(), 0);
  EXPECT_EQ(prefetcher.next(), 1);
  prefetcher.stop();
  EXPECT_LE(made, 6);
  const int after = made;
  EXPECT_EQ(prefetcher.next(), after);
}

}  // namespace
}  // namespace kamerton::data
