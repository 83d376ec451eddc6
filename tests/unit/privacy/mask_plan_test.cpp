// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/mask_plan.h"

#include <vector>

#include <gtest/gtest.h>

#include "bytes.h"
#include "chacha.h"
#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"

namespace kamerton::privacy {
namespace {

MaskPlan some_plan() {
  auto random = test_random(9);
  MaskPlan plan;
  plan.add(random.secret());
  plan.subtract(random.secret());
  plan.add(random.secret());
  return plan;
}

template <class Word>
std::vector<Word> masked(const MaskPlan& plan, size_t size, uint64_t first, uint64_t lane) {
  std::vector<Word> values(size, 7);
  plan.apply(std::span<Word>(values), first, lane);
  return values;
}

template <class Word>
void expect_pieces_equal_whole() {
  const MaskPlan plan = some_plan();
  constexpr size_t kSize = 40000;
  const auto whole = masked<Word>(plan, kSize, 100, 2);
  for (const size_t piece : {size_t{1}, size_t{15}, size_t{16}, size_t{8191}, size_t{16384}}) {
    std::vector<Word> joined;
    for (size_t done = 0; done < (piece == 1 ? 100 : kSize); done += piece) {
      const auto part = masked<Word>(plan, std::min(piece, kSize - done), 100 + done, 2);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_TRUE(std::equal(joined.begin(), joined.end(), whole.begin())) << piece;
  }
}

TEST(MaskPlan, AnyCutOfAVectorGetsTheSameMask) {
  expect_pieces_equal_whole<uint32_t>();
  expect_pieces_equal_whole<uint64_t>();
}

TEST(MaskPlan, AddsTheStreamOfItsSeed) {
  auto random = test_random();
  const Secret seed = random.secret();
  MaskPlan plan;
  plan.add(seed);
  std::vector<uint32_t> stream(32);

  chacha_stream(seed, 5, 0, {reinterpret_cast<uint8_t*>(stream.data()), 128});
  const auto values = masked<uint32_t>(plan, 32, 0, 5);

  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(values[i], stream[i] + 7);
  }
}

TEST(MaskPlan, OppositeTermsCancelAndLanesDiffer) {
  auto random = test_random();
  const Secret seed = random.secret();
  MaskPlan both;
  both.add(seed);
  both.subtract(seed);
  MaskPlan one;
  one.add(seed);

  EXPECT_EQ(masked<uint32_t>(both, 1000, 3, 0), std::vector<uint32_t>(1000, 7));
  EXPECT_NE(masked<uint32_t>(one, 8, 0, 0), masked<uint32_t>(one, 8, 0, 1));
}

TEST(MaskPlan, DecodesWhatItEncodesAndRefusesAllElse) {
  const std::string bytes = some_plan().encode();
  const test::ByteMutator mutate(20263, {"KPRV", std::string("\xff\xff\xff\xff", 4)});

  EXPECT_EQ(MaskPlan::decode(bytes).encode(), bytes);
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(MaskPlan::decode(bytes.substr(0, size)), core::Error);
  }
  for (uint64_t i = 0; i < test::case_count(5000); ++i) {
    const std::string damaged = mutate(bytes, i);
    try {
      EXPECT_EQ(MaskPlan::decode(damaged).encode(), damaged);
    } catch (const core::Error& error) {
      ASSERT_EQ(error.kind(), core::ErrorKind::Data) << error.what();
    }
  }
}

}  // namespace
}  // namespace kamerton::privacy
