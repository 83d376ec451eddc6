// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/codec.h"

#include <cmath>

#include <gtest/gtest.h>

#include "kamerton/core/random.h"

#include "support/expect_error.h"

namespace kamerton::federation {
namespace {

std::vector<float> values_of(size_t n, uint64_t lane) {
  const core::RandomStream random(7, "test.codec", lane);
  std::vector<float> values(n);
  for (size_t i = 0; i < n; ++i) {
    values[i] = static_cast<float>(0.05 * random.normal(i));
  }
  return values;
}

std::unique_ptr<Codec> codec_of(const std::string& encoding) {
  UpdateConfig config;
  config.encoding = encoding;
  return make_codec(config, 3);
}

std::vector<float> there_and_back(const Codec& codec, const std::vector<float>& in) {
  std::vector<std::byte> bytes(
      static_cast<size_t>(codec.block_bytes(static_cast<int64_t>(in.size()))));
  std::vector<float> out(in.size());
  codec.encode(in, 0, bytes);
  codec.decode(bytes, out);
  return out;
}

TEST(Codec, PlainBytesKeepEveryBit) {
  const auto in = values_of(1000, 1);
  EXPECT_EQ(there_and_back(*codec_of("f32"), in), in);
}

TEST(Codec, RoundingStaysWithinTheStep) {
  const auto in = values_of(1024, 2);
  float largest = 0;
  for (const float value : in) {
    largest = std::max(largest, std::fabs(value));
  }
  const auto half = there_and_back(*codec_of("bf16"), in);
  const auto byte = there_and_back(*codec_of("int8"), in);
  const auto ring = there_and_back(*codec_of("ring32"), in);
  for (size_t i = 0; i < in.size(); ++i) {
    EXPECT_LE(std::fabs(half[i] - in[i]), std::fabs(in[i]) / 256) << i;
    EXPECT_LE(std::fabs(byte[i] - in[i]), largest / 127 * 0.5001F) << i;
    EXPECT_LE(std::fabs(ring[i] - in[i]), 2.0F / kRingLevels * 1.001F + 1e-7F) << i;
  }
}

TEST(Codec, RandomRoundingIsRightOnAverage) {
  const std::vector<float> in(kBlock, 0.3F * 2.0F / kRingLevels);
  double sum = 0;
  for (const float value : there_and_back(*codec_of("ring32"), in)) {
    sum += value;
  }
  EXPECT_NEAR(sum / kBlock * kRingLevels / 2, 0.3, 0.05);
}

TEST(Codec, TopKeepsTheLargest) {
  std::vector<float> in = values_of(1024, 3);
  in[17] = 5;
  in[900] = -7;
  const auto out = there_and_back(*codec_of("top_k"), in);
  size_t kept = 0;
  float smallest_kept = 10;
  float largest_lost = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    if (out[i] != 0) {
      ++kept;
      smallest_kept = std::min(smallest_kept, std::fabs(in[i]));
    } else {
      largest_lost = std::max(largest_lost, std::fabs(in[i]));
    }
  }
  EXPECT_EQ(kept, 11U) << "ceil(1 % of 1024)";
  EXPECT_GE(smallest_kept, largest_lost);
  EXPECT_EQ(out[17], 5.0F);
  EXPECT_EQ(out[900], -7.0F);
}

TEST(Codec, SizesOfAnyLengthAddUp) {
  for (const char* name : {"f32", "bf16", "int8", "top_k", "ring32"}) {
    const auto codec = codec_of(name);
    for (const int64_t n : {1, 1023, 1024, 1025, 5000}) {
      int64_t sum = 0;
      for (int64_t begin = 0; begin < n; begin += kBlock) {
        EXPECT_EQ(encoded_offset(*codec, begin / kBlock), sum) << name;
        sum += codec->block_bytes(std::min(kBlock, n - begin));
      }
      EXPECT_EQ(encoded_size(*codec, n), sum) << name;
    }
  }
}

TEST(Codec, BytesThatNobodyEncodedAreRefused) {
  const auto refused = [](const char* name, std::vector<uint8_t> bytes, const char* word) {
    std::vector<float> out(8);
    bytes.resize(static_cast<size_t>(codec_of(name)->block_bytes(8)) * 4);
    test::expect_error(core::ErrorKind::Data, {word}, [&] {
      const auto all = std::as_bytes(std::span(bytes));
      const bool top = std::string(name) == "top_k";
      codec_of(name)->decode(top ? all.first(8) : all, out);
    });
  };
  refused("f32", {0, 0, 0xC0, 0x7F}, "not finite");
  refused("bf16", {0xC0, 0x7F}, "not finite");
  refused("int8", {0, 0, 0x80, 0x7F}, "scale");
  refused("top_k", {8, 0, 0, 0}, "beyond its block");
  refused("top_k", {3, 0, 0, 0, 3, 0, 0, 0}, "twice");
  refused("ring32", {0xFF, 0xFF, 0xFF, 0xFF}, "out of range");
}

}  // namespace
}  // namespace kamerton::federation
