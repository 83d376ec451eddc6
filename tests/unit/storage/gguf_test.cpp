// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/gguf.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/storage/digest.h"

#include "gguf_bytes.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

using core::ErrorKind;
using test::expect_error;

GgufFile parse(const std::string& bytes) {
  return GgufFile::parse(std::as_bytes(std::span(bytes.data(), bytes.size())), "test.gguf");
}

void expect_rejected(std::initializer_list<std::string> parts, const std::string& bytes) {
  expect_error(ErrorKind::Data, parts, [&] { parse(bytes); });
}

TEST(Gguf, ReadsMetadataAndTensors) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "x.gguf", good_gguf());
  const auto file = GgufFile::open(folder / "x.gguf");

  EXPECT_EQ(file.version(), 3U);
  EXPECT_EQ(
      file.metadata().dump(),
      R"({"general.architecture":"llama","llama.block_count":30,"eps":0.5,"flag":true,"tokens":["a","b"],"big":-5})");
  ASSERT_NE(file.find("w"), nullptr);
  EXPECT_EQ(file.find("w")->shape, (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(file.find("missing"), nullptr);
  std::vector<float> norm(4);
  file.read_rows(*file.find("norm"), 0, 1, norm);
  EXPECT_EQ(norm, (std::vector<float>{0.5F, 1.5F, 2.5F, 3.5F}));
  std::vector<float> row(32);
  file.read_rows(*file.find("w"), 1, 1, row);
  EXPECT_EQ(row[0], -32.0F);
  EXPECT_EQ(row[31], 30.0F);
  expect_error(ErrorKind::Internal, {"'w'"}, [&] { file.read_rows(*file.find("w"), 1, 2, row); });
  expect_error(ErrorKind::Internal, {"'w'"}, [&] { file.read_rows(*file.find("w"), 0, 2, row); });
}

TEST(Gguf, RefusesWrongBeginnings) {
  expect_rejected({"GGUF"}, "GGML1234567890123456789012");
  expect_rejected({"version", "1"}, GgufBytes().preamble(0, 0, 1).bytes());
  expect_rejected({"big-endian"}, GgufBytes().preamble(0, 0, 0x03000000).bytes());
  expect_rejected({"number of tensors"}, GgufBytes().preamble(UINT64_MAX, 0).bytes());
  expect_rejected({"number of metadata pairs"}, GgufBytes().preamble(0, UINT64_MAX).bytes());
  expect_error(ErrorKind::Data, {"is empty"}, [] {
    const test::TemporaryFolder folder;
    test::write_text(folder / "x.gguf", "");
    GgufFile::open(folder / "x.gguf");
  });
}

TEST(Gguf, RefusesWrongMetadata) {
  const auto pair = [](auto&& fill) {
    GgufBytes file;
    file.preamble(0, 1).text("key");
    fill(file);
    return file.raw(std::string(64, '\0')).bytes();
  };
  expect_rejected({"'key'", "unknown type", "13"},
                  pair([](auto& f) { f.template number<uint32_t>(13); }));
  expect_rejected({"'key'", "no boolean", "2"}, pair([](auto& f) {
                    f.template number<uint32_t>(7).template number<uint8_t>(2);
                  }));
  expect_rejected({"key is too long", "4294967296"}, pair([](auto& f) {
                    f.template number<uint32_t>(8).template number<uint64_t>(uint64_t{1} << 32);
                  }));
  expect_rejected(
      {"array 'key'", "so many"}, pair([](auto& f) {
        f.template number<uint32_t>(9).template number<uint32_t>(0).template number<uint64_t>(
            uint64_t{1} << 40);
      }));
  expect_rejected(
      {"array 'key'", "unknown type"}, pair([](auto& f) {
        f.template number<uint32_t>(9).template number<uint32_t>(77).template number<uint64_t>(1);
      }));
  expect_rejected({"nested"}, pair([](auto& f) {
                    f.template number<uint32_t>(9);
                    for (int i = 0; i < 5; ++i) {
                      f.template number<uint32_t>(9).template number<uint64_t>(1);
                    }
                  }));
  GgufBytes twice;
  twice.preamble(0, 2);
  twice.text("k")
      .number<uint32_t>(0)
      .number<uint8_t>(1)
      .text("k")
      .number<uint32_t>(0)
      .number<uint8_t>(1);
  expect_rejected({"'k'", "twice"}, twice.raw(std::string(64, '\0')).bytes());
}

TEST(Gguf, RefusesWrongTensors) {
  const auto with = [](auto&& fill, uint64_t num_tensors = 1) {
    GgufBytes file;
    file.preamble(num_tensors, 0);
    fill(file);
    return file.align().raw(std::string(256, 'd')).bytes();
  };
  expect_rejected({"'t'", "type 99"}, with([](auto& f) { f.tensor("t", {4}, 99, 0); }));
  expect_rejected({"'t'", "dimensions"}, with([](auto& f) {
                    f.tensor("t", {1, 1, 1, 1, 1}, 0, 0);
                  }));
  expect_rejected({"'t'", "whole blocks"}, with([](auto& f) { f.tensor("t", {33}, 2, 0); }));
  expect_rejected({"'t'", "overflows"}, with([](auto& f) {
                    f.tensor("t", {uint64_t{1} << 62, 4}, 0, 0);
                  }));
  expect_rejected({"'t'", "overflows"},
                  with([](auto& f) { f.tensor("t", {uint64_t{1} << 63}, 0, 0); }));
  expect_rejected({"'t'", "aligned", "16"}, with([](auto& f) { f.tensor("t", {4}, 0, 16); }));
  expect_rejected({"'t'", "beyond the end"}, with([](auto& f) { f.tensor("t", {65}, 0, 0); }));
  expect_rejected({"'t'", "beyond the end"},
                  with([](auto& f) { f.tensor("t", {4}, 0, UINT64_MAX - 31); }));
  expect_rejected({"'a' and 'b' overlap"},
                  with([](auto& f) { f.tensor("b", {8}, 0, 32).tensor("a", {16}, 0, 0); }, 2));
  expect_rejected({"'t'", "twice"},
                  with([](auto& f) { f.tensor("t", {8}, 0, 0).tensor("t", {8}, 0, 32); }, 2));
}

TEST(Gguf, HonoursAlignmentFromMetadata) {
  const auto with_alignment = [](uint32_t alignment) {
    GgufBytes file;
    file.preamble(1, 1).text("general.alignment").number<uint32_t>(4).number<uint32_t>(alignment);
    file.tensor("t", {2}, 0, 0).align(64);
    return file.number<float>(1.0F).number<float>(2.0F).bytes();
  };
  const auto bytes = with_alignment(64);
  const auto file = parse(bytes);
  std::vector<float> values(2);
  file.read_rows(file.tensors()[0], 0, 1, values);

  EXPECT_EQ(values[1], 2.0F);
  expect_rejected({"general.alignment", "7"}, with_alignment(7));
  expect_rejected({"general.alignment", "0"}, with_alignment(0));
}

/// Eight-bit pattern blocks with sane scales; the digests of the floats were made with the Python
/// package gguf 0.17 (gguf.quants.dequantize) from the same bytes.
struct Golden {
  GgmlType type;
  std::vector<size_t> scales;  ///< where a block has its scale, and its minimum
  const char* digest;
  float second;
  float last;
};

const std::vector<Golden> kGolden = {
    {GgmlType::Q4_0,
     {0},
     "4bb4f87bebb68c2b2954b3deba135c28523a0c90e2d25cc2786a2953c1db3b4b",
     0.125F,
     -0.87841796875F},
    {GgmlType::Q4_1,
     {0, 2},
     "dcc0fc7a46da1f3b8a8ab5766b162cfd416f85a8029daba8c321aa83f0ce3e84",
     0.28125F,
     0.690185546875F},
    {GgmlType::Q5_0,
     {0},
     "d88a69c32192b2e70321a77916d889600c77a0fd732e53cc252c4ad7cc8fc03b",
     -0.125F,
     -0.7529296875F},
    {GgmlType::Q5_1,
     {0, 2},
     "612789af3e3566014b460eaeafaa8b6f2a62885c585e68eb12b1b94e403edeb2",
     1.53125F,
     3.952880859375F},
    {GgmlType::Q8_0,
     {0},
     "5cf29bfa64b389260c278b601bf2dcca9bb714d7461c87be1dd49380e6ae315f",
     7.625F,
     12.548828125F},
    {GgmlType::Q4_K,
     {0, 2},
     "60209c1e8314e6ad91cca2b34ce1d36490f297a4924f9e3ce1a68116e513523a",
     -1.59375F,
     20.3291015625F},
    {GgmlType::Q5_K,
     {0, 2},
     "fdceb345a4f6fb15ae7ca07a264f84153fdc9fb073fa6b949fc5e3c636e66c13",
     -1.59375F,
     73.0341796875F},
    {GgmlType::Q6_K,
     {208},
     "5a219a32ac58f0612a8b66c2916603962e50cc100b117ca0b7deb0c314eb0768",
     106.0F,
     251.7294921875F}};

TEST(Gguf, DequantisesWithTheBitsOfTheReference) {
  for (const auto& expected : kGolden) {
    const auto block = block_of(expected.type);
    std::vector<std::byte> bytes;
    for (size_t b = 0; b < 5; ++b) {
      for (size_t i = 0; i < block.size; ++i) {
        bytes.push_back(static_cast<std::byte>(37 * i + 101 * b + 11));
      }
      for (size_t j = 0; j < expected.scales.size(); ++j) {
        const size_t half = (j == 0 ? 0x2c00 : 0x2800) + b * 257;
        bytes[b * block.size + expected.scales[j]] = static_cast<std::byte>(half & 255);
        bytes[b * block.size + expected.scales[j] + 1] = static_cast<std::byte>(half >> 8);
      }
    }
    std::vector<float> floats(5 * static_cast<size_t>(block.num_elements));
    dequantise(expected.type, bytes, floats);

    EXPECT_EQ(floats[1], expected.second) << name_of(expected.type);
    EXPECT_EQ(floats.back(), expected.last) << name_of(expected.type);
    EXPECT_EQ(to_hex(digest_of(std::as_bytes(std::span<const float>(floats)), DigestKind::Sha256)),
              expected.digest)
        << name_of(expected.type);
  }
}

TEST(Gguf, WidensHalfAndBfloatExactly) {
  const uint16_t halves[] = {
      0x0000, 0x8000, 0x3c00, 0xc000, 0x0001, 0x03ff, 0x7bff, 0x7c00, 0xfc00};
  std::vector<float> floats(9);
  dequantise(GgmlType::F16, std::as_bytes(std::span(halves)), floats);
  EXPECT_EQ(floats,
            (std::vector<float>{
                0.0F, -0.0F, 1.0F, -2.0F, 0x1p-24F, 0x3ffp-24F, 65504.0F, HUGE_VALF, -HUGE_VALF}));
  const uint16_t brains[] = {0x3f80, 0xc000, 0x0001};
  floats.resize(3);
  dequantise(GgmlType::BF16, std::as_bytes(std::span(brains)), floats);
  EXPECT_EQ(floats, (std::vector<float>{1.0F, -2.0F, 0x1p-133F}));
}

}  // namespace
}  // namespace kamerton::storage
