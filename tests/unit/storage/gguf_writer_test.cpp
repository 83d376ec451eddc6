// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/gguf_writer.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/random.h"

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

std::vector<float> samples(size_t count, double spread) {
  const core::RandomStream random(7, "test.gguf_writer");
  std::vector<float> values;
  for (size_t i = 0; i < count; ++i) {
    values.push_back(static_cast<float>(spread * random.normal(i)));
  }
  return values;
}

std::vector<std::byte> blocks_of(GgmlType type, const std::vector<float>& values) {
  const GgmlBlock shape = block_of(type);
  std::vector<std::byte> bytes(values.size() / static_cast<size_t>(shape.num_elements) *
                               shape.size);
  EXPECT_TRUE(quantise(type, values, bytes));
  return bytes;
}

std::vector<float> back(GgmlType type, const std::vector<float>& values) {
  std::vector<float> out(values.size());
  dequantise(type, blocks_of(type, values), out);
  return out;
}

TEST(GgufWriter, WhatIsWrittenIsReadBack) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "model.gguf";
  const auto values = samples(64 * 3, 1.0);
  GgufMetadata metadata;
  metadata.add_text("general.architecture", "llama");
  metadata.add_count("llama.block_count", 2);
  metadata.add_real("eps", 0.5F);
  metadata.add_flag("flag", true);
  metadata.add_texts("tokens", {"a", "\u2581b", ""});
  metadata.add_integers("types", {1, -2});
  metadata.add_reals("scores", {0.0F, -1.5F});

  GgufWriter writer(path,
                    metadata,
                    {{"norm", GgmlType::F32, {5}},
                     {"w", GgmlType::Q8_0, {3, 64}},
                     {"h", GgmlType::F16, {3, 64}}});
  const auto blocks = blocks_of(GgmlType::Q8_0, values);
  writer.append("w", std::span(blocks).first(68));
  writer.append("w", std::span(blocks).subspan(68));
  writer.append("h", blocks_of(GgmlType::F16, values));
  EXPECT_FALSE(std::filesystem::exists(path));
  writer.append("norm", blocks_of(GgmlType::F32, {1, 2, 3, 4, 5}));
  writer.finish();

  const GgufFile file = GgufFile::open(path);
  EXPECT_EQ(file.metadata().dump(),
            R"({"general.architecture":"llama","llama.block_count":2,"eps":0.5,"flag":true,)"
            R"("tokens":["a","▁b",""],"types":[1,-2],"scores":[0.0,-1.5]})");
  ASSERT_EQ(file.tensors().size(), 3U);
  EXPECT_EQ(file.find("w")->shape, (std::vector<int64_t>{3, 64}));
  std::vector<float> row(64);
  file.read_rows(*file.find("w"), 2, 1, row);
  const auto expected = back(GgmlType::Q8_0, values);
  EXPECT_EQ(row, std::vector<float>(expected.begin() + 128, expected.end()));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "model.gguf.tmp"));
}

TEST(GgufWriter, AnUnfinishedFileIsRefusedAndLeavesNothing) {
  const test::TemporaryFolder folder;
  {
    GgufWriter writer(folder.path() / "x.gguf", {}, {{"w", GgmlType::F32, {2}}});
    test::expect_error(core::ErrorKind::Internal, {"'w' lacks bytes"}, [&] { writer.finish(); });
    test::expect_error(core::ErrorKind::Internal, {"beyond its end"}, [&] {
      writer.append("w", blocks_of(GgmlType::F32, {1, 2, 3}));
    });
    test::expect_error(
        core::ErrorKind::Internal, {"not declared"}, [&] { writer.append("v", {}); });
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufWriter, BadDeclarationsAndDoubleKeysAreRefused) {
  const test::TemporaryFolder folder;
  const auto declare = [&](const std::vector<GgufDeclaration>& tensors) {
    test::expect_error(core::ErrorKind::Internal, {"declared"}, [&] {
      GgufWriter(folder.path() / "x.gguf", {}, tensors);
    });
  };
  declare({{"w", GgmlType::Q8_0, {2, 33}}});
  declare({{"", GgmlType::F32, {2}}});
  declare({{"w", GgmlType::F32, {1, 1, 1, 1, 1}}});
  declare({{"w", GgmlType::F32, {1}}, {"w", GgmlType::F32, {1}}});
  GgufMetadata metadata;
  metadata.add_flag("a", true);
  test::expect_error(
      core::ErrorKind::Internal, {"given twice"}, [&] { metadata.add_count("a", 1); });
}

TEST(GgufQuantise, HalvesOfAllHalvesAreExact) {
  for (uint32_t bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    std::vector<std::byte> in(2);
    std::memcpy(in.data(), &half, 2);
    std::vector<float> value(1);
    dequantise(GgmlType::F16, in, value);
    if (!std::isnan(value[0])) {
      EXPECT_EQ(blocks_of(GgmlType::F16, value), in) << bits;
    }
  }
}

TEST(GgufQuantise, HalvesRoundToNearestEven) {
  const auto step = static_cast<float>(std::ldexp(1.0, -10));
  EXPECT_EQ(back(GgmlType::F16, {1.0F + step / 2, 1.0F + 1.5F * step, 1.0F + 0.51F * step}),
            (std::vector<float>{1.0F, 1.0F + 2 * step, 1.0F + step}));
  EXPECT_EQ(back(GgmlType::BF16, {1.0F + 1.0F / 256, 1.0F + 3.0F / 256, -3.5F}),
            (std::vector<float>{1.0F, 1.0F + 4.0F / 256, -3.5F}));
}

TEST(GgufQuantise, Q8StaysWithinHalfAStep) {
  const auto values = samples(32 * 50, 3.0);
  const auto read = back(GgmlType::Q8_0, values);
  for (size_t block = 0; block < values.size(); block += 32) {
    float largest = 0;
    for (size_t i = block; i < block + 32; ++i) {
      largest = std::max(largest, std::fabs(values[i]));
    }
    for (size_t i = block; i < block + 32; ++i) {
      EXPECT_NEAR(read[i], values[i], largest / 127 * 0.5 + largest * 0.001);
    }
  }
  EXPECT_EQ(back(GgmlType::Q8_0, std::vector<float>(32, 0.0F)), std::vector<float>(32, 0.0F));
}

TEST(GgufQuantise, ValuesBeyondTheRangeAreTold) {
  std::vector<std::byte> bytes(2);
  EXPECT_FALSE(quantise(GgmlType::F16, std::vector<float>{65520.0F}, bytes));
  EXPECT_TRUE(quantise(GgmlType::F16, std::vector<float>{65504.0F}, bytes));
  EXPECT_TRUE(
      quantise(GgmlType::F16, std::vector<float>{std::numeric_limits<float>::infinity()}, bytes));
}

}  // namespace
}  // namespace kamerton::storage
