// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/combine.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "kamerton/core/random.h"
#include "kamerton/federation/vector_file.h"

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::federation {
namespace {

using Vectors = std::vector<std::vector<float>>;

std::vector<float> noise(size_t n, uint64_t lane, double scale = 0.1) {
  const core::RandomStream random(11, "test.combine", lane);
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) {
    values[i] = static_cast<float>(scale * random.normal(i));
  }
  return values;
}

void write_update(const std::filesystem::path& path,
                  const Codec& codec,
                  const std::vector<float>& values) {
  const auto size = static_cast<int64_t>(values.size());
  RangeFile file = RangeFile::open_or_create(path, encoded_size(codec, size));
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t count = std::min(kBlock, size - begin);
    std::vector<std::byte> bytes(static_cast<size_t>(codec.block_bytes(count)));
    codec.encode(std::span(values).subspan(static_cast<size_t>(begin), static_cast<size_t>(count)),
                 begin / kBlock,
                 bytes);
    file.write(encoded_offset(codec, begin / kBlock), std::span<const std::byte>(bytes));
  }
}

/// Updates on disk as sites "s0", "s1", ... with the weights.
struct Updates {
  test::TemporaryFolder folder;
  FederationConfig config;
  int64_t size;
  std::vector<Contribution> list;

  Updates(FederationConfig given, const Vectors& values, const std::vector<double>& weights)
      : config(std::move(given)), size(static_cast<int64_t>(values[0].size())) {
    const auto codec = make_codec(config.update, 9);
    for (size_t k = 0; k < values.size(); ++k) {
      const std::string name = "s" + std::to_string(k);
      write_update(folder / name, *codec, values[k]);
      list.push_back({name, weights[k], check_update(folder / name, *codec, size), folder / name});
    }
  }
  std::vector<double> combined() const {
    std::vector<double> all(static_cast<size_t>(size));
    Combiner(config, list, size).run([&](int64_t begin, std::span<const double> update) {
      std::copy(update.begin(), update.end(), all.begin() + begin);
    });
    return all;
  }
};

FederationConfig rule(const std::string& name, int64_t byzantine = 1) {
  FederationConfig config;
  config.robust.rule = name;
  config.robust.byzantine = byzantine;
  return config;
}

constexpr size_t kSize = 70000;  // more than a chunk, no multiple of a block

TEST(Combine, MeanIsTheFloat64Formula) {
  const Vectors values = {noise(kSize, 1), noise(kSize, 2), noise(kSize, 3)};
  const Updates updates(rule("mean"), values, {10, 30, 60});
  const auto got = updates.combined();
  for (size_t i = 0; i < kSize; ++i) {
    const double want = 0.1 * values[0][i] + 0.3 * values[1][i] + 0.6 * values[2][i];
    ASSERT_NEAR(got[i], want, 1e-15) << i;
  }
}

TEST(Combine, ArrivalOrderDoesNotChangeABit) {
  Vectors values;
  std::vector<double> weights;
  for (uint64_t k = 0; k < 7; ++k) {
    values.push_back(noise(kSize, k, std::pow(10.0, static_cast<double>(k) - 3)));
    weights.push_back(1.0 + 0.37 * static_cast<double>(k));
  }
  for (const char* name : {"mean", "median", "trimmed_mean", "krum", "multi_krum"}) {
    Updates updates(rule(name), values, weights);
    const auto first = updates.combined();
    for (int turn = 0; turn < 3; ++turn) {
      std::rotate(updates.list.begin(), updates.list.begin() + 2, updates.list.end());
      std::swap(updates.list[0], updates.list[3]);
      EXPECT_EQ(updates.combined(), first) << name;
    }
  }
}

TEST(Combine, RobustRulesAreTheirDefinitions) {
  Vectors values;
  for (uint64_t k = 0; k < 6; ++k) {
    values.push_back(noise(3000, k));
  }
  const auto median = Updates(rule("median"), values, {1, 1, 1, 1, 1, 1}).combined();
  const auto trimmed = Updates(rule("trimmed_mean", 1), values, {1, 1, 1, 1, 1, 1}).combined();
  for (size_t i = 0; i < 3000; ++i) {
    std::vector<double> column;
    for (const auto& update : values) {
      column.push_back(update[i]);
    }
    std::sort(column.begin(), column.end());
    ASSERT_NEAR(median[i], (column[2] + column[3]) / 2, 1e-12);
    ASSERT_NEAR(trimmed[i], (column[1] + column[2] + column[3] + column[4]) / 4, 1e-12);
  }
}

TEST(Combine, OneLiarOfFiveDoesNoHarm) {
  Vectors values;
  const auto honest = noise(4000, 50, 1.0);
  for (uint64_t k = 0; k < 5; ++k) {
    values.push_back(noise(4000, k, 0.01));
    for (size_t i = 0; i < honest.size(); ++i) {
      values.back()[i] += honest[i];
    }
  }
  for (float& value : values[1]) {
    value *= -10;
  }
  const Updates updates(rule("krum"), values, {1, 1e9, 1, 1, 1});
  const Combiner combiner(updates.config, updates.list, updates.size);
  ASSERT_EQ(combiner.sites().size(), 1U);
  EXPECT_NE(combiner.sites()[0], "s1");
  const Combiner several(rule("multi_krum"), updates.list, updates.size);
  EXPECT_EQ(several.sites(), (std::vector<std::string>{"s0", "s2", "s3", "s4"}));
  for (const char* name : {"median", "trimmed_mean", "krum", "multi_krum"}) {
    const auto got = Updates(rule(name), values, {1, 1e9, 1, 1, 1}).combined();
    double gap = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      gap = std::max(gap, std::fabs(got[i] - honest[i]));
    }
    EXPECT_LT(gap, 0.1) << name;
  }
}

TEST(Combine, NormBoundScalesOneSiteDown) {
  const Vectors values = {noise(2000, 1, 0.01), noise(2000, 2, 10.0)};
  FederationConfig config = rule("mean");
  config.robust.norm_bound = 1.0;
  const auto got = Updates(config, values, {1, 1}).combined();
  double norm = 0;
  for (const float value : values[1]) {
    norm += static_cast<double>(value) * value;
  }
  norm = std::sqrt(norm);
  for (size_t i = 0; i < 2000; ++i) {
    ASSERT_NEAR(got[i], values[0][i] / 2 + values[1][i] / norm / 2, 1e-12);
  }
}

TEST(Combine, FixedPointSumsAreExactIntegers) {
  FederationConfig config = rule("mean");
  config.update.encoding = "ring32";
  config.weights = "uniform";
  const Vectors values = {noise(5000, 1), noise(5000, 2), noise(5000, 3)};
  const auto got = Updates(config, values, {1, 1, 1}).combined();
  for (size_t i = 0; i < 5000; ++i) {
    const double want = (static_cast<double>(values[0][i]) + values[1][i] + values[2][i]) / 3;
    ASSERT_NEAR(got[i], want, 2.0 / kRingLevels) << i;
  }
}

TEST(Combine, TooFewForTheRuleIsSaid) {
  const Vectors values = {noise(100, 1), noise(100, 2)};
  test::expect_error(core::ErrorKind::Config, {"krum", "2 updates"}, [&] {
    Updates(rule("krum"), values, {1, 1}).combined();
  });
}

}  // namespace
}  // namespace kamerton::federation
