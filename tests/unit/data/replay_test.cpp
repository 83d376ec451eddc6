// SPDX-License-Identifier: Apache-2.0
#include "replay.h"

#include <set>

#include <gmock/gmock.h>

namespace kamerton::data {
namespace {

RecordList list_of(const std::vector<std::string>& texts) {
  return {static_cast<int64_t>(texts.size()),
          [&texts](int64_t i) { return texts[static_cast<size_t>(i)]; }};
}

TEST(Replay, CountsAsManyAsMakeTheRatio) {
  EXPECT_EQ(replay_count(90, 0.1), 10);
  EXPECT_EQ(replay_count(100, 0.5), 100);
  EXPECT_EQ(replay_count(1, 0.01), 1);
}

TEST(Replay, DrawsDifferentRecordsAtRandomAndTheSameEachTime) {
  const std::vector<uint64_t> chosen = random_records(30, 100);
  EXPECT_EQ(std::set<uint64_t>(chosen.begin(), chosen.end()).size(), 30);
  EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
  EXPECT_LT(chosen.back(), 100);
  EXPECT_EQ(chosen, random_records(30, 100));
  EXPECT_NE(chosen.back(), 29);
  EXPECT_EQ(random_records(9, 4).size(), 4);
}

TEST(Replay, TakesTheRecordsWhoseWordsAreMostLikeTheRunsOwn) {
  const std::vector<std::string> own = {"my invoice shows a fee", "the invoice is too high"};
  const std::vector<std::string> general = {"the cat sat on the mat",
                                            "an invoice with a fee",
                                            "rivers run to the sea",
                                            "a high fee on my invoice",
                                            "to of at in by"};
  EXPECT_THAT(similar_records(2, list_of(general), list_of(own)), testing::ElementsAre(1, 3));
  EXPECT_EQ(similar_records(9, list_of(general), list_of(own)).size(), 5);
}

TEST(Replay, OfEqualRecordsTakesTheFirst) {
  const std::vector<std::string> own = {"a b c"};
  const std::vector<std::string> general = {"x y", "a b", "a b", "a b"};
  EXPECT_THAT(similar_records(2, list_of(general), list_of(own)), testing::ElementsAre(1, 2));
}

}  // namespace
}  // namespace kamerton::data
