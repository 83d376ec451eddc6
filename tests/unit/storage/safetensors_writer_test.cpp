// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "kamerton/storage/safetensors.h"

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

using core::ErrorKind;
using test::expect_error;

std::vector<std::byte> counted(size_t size, int first) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
  }
  return bytes;
}

bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::ranges::equal(a, b);
}

const std::vector<TensorDeclaration> kTensors = {{"u", DType::U8, {3}},
                                                 {"half", DType::BF16, {2, 3}},
                                                 {"wide", DType::F64, {2}},
                                                 {"scalar", DType::F32, {}},
                                                 {"none", DType::F32, {0}}};

TEST(SafetensorsWriter, WritesWhatTheReaderReadsInAnyOrderAndInRanges) {
  const test::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  SafetensorsWriter writer(path, kTensors, {{"format", "pt"}, {"note", "a \"quoted\" text"}});
  writer.write("wide", 10, counted(6, 10));
  writer.write("u", counted(3, 50));
  writer.write("wide", 0, counted(3, 0));
  writer.write("scalar", counted(4, 7));
  writer.write("wide", 3, counted(7, 3));
  writer.write("half", counted(12, 90));
  EXPECT_FALSE(std::filesystem::exists(path));
  writer.finish();

  const auto file = SafetensorsFile::open(path);
  EXPECT_TRUE(equal(file.bytes(*file.find("wide")), counted(16, 0)));
  EXPECT_TRUE(equal(file.bytes(*file.find("half")), counted(12, 90)));
  EXPECT_TRUE(equal(file.bytes(*file.find("u")), counted(3, 50)));
  EXPECT_EQ(file.find("scalar")->shape.size(), 0U);
  EXPECT_EQ(file.find("none")->size, 0U);
  EXPECT_EQ(file.metadata()[1].second, "a \"quoted\" text");
  for (const auto& entry : file.entries()) {
    EXPECT_EQ(entry.offset % size_of(entry.dtype), 0U) << entry.name;
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "x.safetensors.tmp"));
}

TEST(SafetensorsWriter, RefusesWhatIsWrittenTwiceBeyondTheEndOrNotAtAll) {
  const test::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  {
    SafetensorsWriter writer(path, {{"a", DType::F32, {4}}});
    writer.write("a", 4, counted(4, 0));
    expect_error(
        ErrorKind::Internal, {"'a'", "twice"}, [&] { writer.write("a", 2, counted(4, 0)); });
    expect_error(
        ErrorKind::Internal, {"'a'", "twice"}, [&] { writer.write("a", 0, counted(16, 0)); });
    expect_error(
        ErrorKind::Internal, {"'a'", "beyond"}, [&] { writer.write("a", 12, counted(5, 0)); });
    expect_error(ErrorKind::Internal, {"'b'"}, [&] { writer.write("b", counted(1, 0)); });
    writer.write("a", 8, counted(8, 0));
    expect_error(ErrorKind::Internal, {"'a'", "lacks bytes"}, [&] { writer.finish(); });
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  expect_error(ErrorKind::Internal, {"twice", "'a'"}, [&] {
    SafetensorsWriter(path, {{"a", DType::F32, {1}}, {"a", DType::F32, {1}}});
  });
  expect_error(ErrorKind::Output, {"none"}, [&] { SafetensorsWriter(folder / "none" / "x", {}); });
}

TEST(SafetensorsWriter, MayReplaceTheFileItReadsFrom) {
  const test::TemporaryFolder folder;
  const auto path = folder / "x.safetensors";
  const auto data = counted(64, 3);
  SafetensorsWriter first(path, {{"a", DType::U8, {64}}});
  first.write("a", data);
  first.finish();

  const auto source = SafetensorsFile::open(path);
  SafetensorsWriter second(path, {{"a", DType::U8, {64}}});
  second.write("a", source.bytes(*source.find("a")));
  second.finish();

  const auto reread = SafetensorsFile::open(path);
  EXPECT_TRUE(equal(reread.bytes(*reread.find("a")), data));
}

TEST(SafetensorsModelWriter, ShardsBySizeAndRemovesOldShards) {
  const test::TemporaryFolder folder;
  std::vector<TensorDeclaration> tensors;
  for (int i = 0; i < 7; ++i) {
    tensors.push_back({"t" + std::to_string(i), DType::U8, {40}});
  }
  const auto write_all = [&](uint64_t max_shard_bytes) {
    SafetensorsModelWriter writer(folder.path(), tensors, max_shard_bytes);
    for (int i = 6; i >= 0; --i) {
      writer.write("t" + std::to_string(i), counted(40, i));
    }
    writer.finish();
  };

  write_all(100);
  {
    const auto model = SafetensorsModel::open(folder.path());
    EXPECT_EQ(model.files().size(), 4U);
    EXPECT_TRUE(std::filesystem::exists(folder / "model-00004-of-00004.safetensors"));
    EXPECT_EQ(model.names().size(), 7U);
    EXPECT_TRUE(equal(model.bytes("t5"), counted(40, 5)));
    EXPECT_THAT(test::read_text(folder / "model.safetensors.index.json"),
                testing::HasSubstr("\"total_size\": 280"));
  }
  write_all(1000);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
  EXPECT_EQ(SafetensorsModel::open(folder.path()).files().size(), 1U);
  write_all(1);  // a tensor larger than the limit has a shard of its own
  EXPECT_EQ(SafetensorsModel::open(folder.path()).files().size(), 7U);
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors"));
}

}  // namespace
}  // namespace kamerton::storage
