// SPDX-License-Identifier: Apache-2.0
// Packing against TRL's pack_dataset, tie order included.
#include "packing.h"

#include <fstream>
#include <sstream>

#include <gmock/gmock.h>

#include "kamerton/core/random.h"

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::Json;
using ::testing::ElementsAre;

constexpr size_t kWindow = 1000;

Json cases() {
  const auto shared = shared_folder();
  if (!shared || !std::filesystem::exists(*shared / "fixtures/sft/packing.json")) {
    return Json::array();
  }
  std::ifstream file(*shared / "fixtures/sft/packing.json");
  std::ostringstream text;
  text << file.rdbuf();
  return core::parse_json(text.str(), "packing.json")["cases"];
}

RowPlan plan_of(const std::string& strategy, std::span<const int32_t> lengths, int32_t row) {
  return strategy == "wrapped"
             ? pack_wrapped(lengths, row)
             : pack_best_fit(
                   lengths, row, strategy == "bfd" ? LongExamples::Cut : LongExamples::Split);
}

/// Rows as TRL's lists of token values: example * scale + position.
struct Packed {
  std::vector<std::vector<int64_t>> rows;
  std::vector<std::vector<int64_t>> lengths;
};

Packed pack(const std::string& strategy,
            const std::vector<int32_t>& lengths,
            int32_t row_length,
            int64_t scale) {
  Packed packed;
  for (size_t first = 0; first < lengths.size(); first += kWindow) {
    const auto window =
        std::span(lengths).subspan(first, std::min(kWindow, lengths.size() - first));
    const RowPlan plan = plan_of(strategy, window, row_length);
    for (int64_t row = 0; row < plan.rows(); ++row) {
      auto& tokens = packed.rows.emplace_back();
      auto& parts = packed.lengths.emplace_back();
      for (const Piece& piece : plan.row(row)) {
        parts.push_back(piece.length);
        for (int32_t i = 0; i < piece.length; ++i) {
          tokens.push_back((static_cast<int64_t>(first) + piece.element) * scale + piece.begin + i);
        }
      }
    }
  }
  return packed;
}

TEST(Packing, EqualsTrlInEveryCase) {
  const Json all = cases();
  if (all.empty()) {
    GTEST_SKIP() << "KAMERTON_SHARED has no fixtures/sft/packing.json";
  }
  ASSERT_EQ(all.size(), 23);
  for (const Json& one : all) {
    const auto name = one["name"].get<std::string>() + " " + one["strategy"].get<std::string>();
    SCOPED_TRACE(name);
    const bool large = one["name"] == "two_batches_of_1000";
    const Packed packed = pack(one["strategy"],
                               one["lengths"].get<std::vector<int32_t>>(),
                               one["seq_length"].get<int32_t>(),
                               large ? 10 : 1000);
    if (!large) {
      EXPECT_EQ(Json(packed.rows), one["packed"]);
      if (!one["seq_lengths"].is_null()) {
        EXPECT_EQ(Json(packed.lengths), one["seq_lengths"]);
      }
      continue;
    }
    Json lengths = Json::array();
    Json starting = Json::array();
    for (const auto& row : packed.rows) {
      lengths.push_back(row.size());
      Json firsts = Json::array();
      for (const int64_t token : row) {
        if (token % 10 == 0) {
          firsts.push_back(token / 10);
        }
      }
      starting.push_back(firsts);
    }
    EXPECT_EQ(lengths, one["row_lengths"]);
    EXPECT_EQ(starting, one["sequences_starting_in_row"]);
  }
}

TEST(Packing, EveryTokenIsInOneRowAndNoRowIsTooLong) {
  const core::RandomStream random(1, "test.packing");
  for (uint64_t round = 0; round < 200; ++round) {
    std::vector<int32_t> lengths;
    for (uint64_t i = 0; i < 1 + random.below(round, 300); ++i) {
      lengths.push_back(static_cast<int32_t>(random.below(1000 * (round + 1) + i, 90)));
    }
    for (const char* strategy : {"bfd", "bfd_split", "wrapped"}) {
      const RowPlan plan = plan_of(strategy, lengths, 64);
      std::vector<int32_t> seen(lengths.size());
      for (int64_t row = 0; row < plan.rows(); ++row) {
        int32_t used = 0;
        ASSERT_FALSE(plan.row(row).empty());
        for (const Piece& piece : plan.row(row)) {
          used += piece.length;
          seen[static_cast<size_t>(piece.element)] += piece.length;
        }
        ASSERT_LE(used, 64);
      }
      for (size_t i = 0; i < lengths.size(); ++i) {
        const int32_t cut = std::min(lengths[i], 64);
        ASSERT_EQ(seen[i], strategy == std::string("bfd") ? cut : lengths[i]) << strategy;
      }
    }
  }
}

TEST(Packing, OrderByLengthIsStableAndLeavesOutTheEmpty) {
  const std::vector<int32_t> lengths = {3, 0, 5, 3, 5};
  const RowPlan plan = order_by_length(lengths);
  std::vector<int32_t> order;
  for (int64_t row = 0; row < plan.rows(); ++row) {
    order.push_back(plan.row(row).front().element);
  }
  EXPECT_THAT(order, ElementsAre(2, 4, 0, 3));
}

}  // namespace
}  // namespace kamerton::data
