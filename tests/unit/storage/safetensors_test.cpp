// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/safetensors.h"

#include <cstdlib>

#include <gtest/gtest.h>

#include "safetensors_bytes.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

using core::ErrorKind;
using test::expect_error;

constexpr char kGood[] =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[8,16]},)"
    R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"s":{"dtype":"U8","shape":[],"data_offsets":[16,17]},)"
    R"("e":{"dtype":"I64","shape":[0,3],"data_offsets":[17,17]}})";

void expect_rejected(const std::string& rule,
                     const std::string& header,
                     size_t data_size,
                     const std::string& also = "") {
  SCOPED_TRACE(header);
  expect_error(ErrorKind::Data, {"test.safetensors", rule + " of safetensors", also}, [&] {
    parse_text(safetensors_bytes(header, data_size));
  });
}

TEST(Safetensors, ReadsEntriesInTheOrderOfTheirBytes) {
  const auto header = parse_text(safetensors_bytes(kGood, 17));

  ASSERT_EQ(header.entries.size(), 4U);
  EXPECT_EQ(header.entries[0].name, "a");
  EXPECT_EQ(header.entries[1].name, "b");
  EXPECT_EQ(header.entries[1].dtype, DType::BF16);
  EXPECT_EQ(header.entries[1].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(header.entries[2].num_elements, 1);
  EXPECT_EQ(header.entries[3].size, 0U);
  EXPECT_EQ(header.entries[1].offset, 8 + std::string_view(kGood).size() + 8);
  EXPECT_EQ(header.metadata, (TextPairs{{"format", "pt"}}));
}

TEST(Safetensors, AcceptsWhatTheReferenceAccepts) {
  EXPECT_TRUE(parse_text(safetensors_bytes("{}", 0)).entries.empty());
  EXPECT_NO_THROW(parse_text(safetensors_bytes(" \n\t{ }  \n", 0)));
  EXPECT_NO_THROW(parse_text(
      safetensors_bytes(R"({"ż":{"shape":[1],"data_offsets":[0,1],"dtype":"BOOL"}})", 1)));
}

TEST(Safetensors, NamesTheBrokenRule) {
  const auto tensor = [](const std::string& body) { return "{\"t\":{" + body + "}}"; };
  const std::string dtype = R"("dtype":"F32",)";
  expect_rejected("rule 3", "{\"\xff\":{}}", 0);
  expect_rejected("rule 4", "[]", 0);
  expect_rejected("rule 4", "", 0);
  expect_rejected("rule 4", "\xef\xbb\xbf{}", 0);
  expect_rejected("rule 4", "{} {}", 0);
  expect_rejected("rule 4", std::string("{}\0", 3), 0);
  expect_rejected("rule 5", R"({"__metadata__":{"a":1}})", 0);
  expect_rejected("rule 5", R"({"__metadata__":[]})", 0);
  expect_rejected("rule 5", R"({"__metadata__":{"a":{}}})", 0);
  expect_rejected("rule 6", R"({"t":1})", 0);
  expect_rejected("rule 6", tensor(R"("dtype":"F32","shape":[1])"), 4, "'t'");
  expect_rejected("rule 6", tensor(dtype + R"("shape":[1],"data_offsets":[0,4],"x":1)"), 4, "'x'");
  expect_rejected("rule 7", tensor(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), 4, "F33");
  expect_rejected(
      "rule 7", tensor(R"("dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4])"), 4, "does not use");
  expect_rejected("rule 7", tensor(R"("dtype":4,"shape":[4],"data_offsets":[0,4])"), 4);
  expect_rejected("rule 8", tensor(dtype + R"("shape":[-1],"data_offsets":[0,4])"), 4);
  expect_rejected("rule 8", tensor(dtype + R"("shape":[1.0],"data_offsets":[0,4])"), 4);
  expect_rejected(
      "rule 8", tensor(dtype + R"("shape":[18446744073709551616],"data_offsets":[0,4])"), 4);
  expect_rejected(
      "rule 8",
      tensor(dtype + R"("shape":[281474976710655,281474976710655,0],"data_offsets":[0,0])"),
      0,
      "overflow");
  expect_rejected(
      "rule 15", tensor(dtype + R"("shape":[281474976710656],"data_offsets":[0,4])"), 4);
  expect_rejected("rule 10", tensor(dtype + R"("shape":[1],"data_offsets":[4,0])"), 4);
  expect_rejected("rule 10", tensor(dtype + R"("shape":[1],"data_offsets":[0,4,8])"), 4);
  expect_rejected("rule 6", tensor(dtype + R"("shape":[1],"data_offsets":[0])"), 4);
  expect_rejected("rule 10", tensor(dtype + R"("shape":[1],"data_offsets":[4,8])"), 8, "hole");
  expect_rejected("rule 11", tensor(dtype + R"("shape":[2],"data_offsets":[0,4])"), 4, "8 bytes");
  expect_rejected("rule 13", R"({"t":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"t":{}})", 0);
  expect_rejected(
      "rule 13", tensor(R"("dtype":"F32","dtype":"F32","shape":[0],"data_offsets":[0,0])"), 0);
  expect_rejected("rule 13", R"({"__metadata__":{},"__metadata__":{}})", 0);
  expect_rejected("our limit", R"({"":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", 0);
  expect_rejected("our limit", R"({"a\nb":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})", 0);
}

TEST(Safetensors, RefusesOverlapsAndBothSizesOfACutFile) {
  expect_rejected(
      "rule 10",
      R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
      6,
      "overlap");
  const auto good = safetensors_bytes(kGood, 17);
  const auto expected = std::to_string(good.size());
  const auto actual = std::to_string(good.size() - 1);
  expect_error(ErrorKind::Data, {"rule 12", "cut short", expected, actual}, [&] {
    parse_text(good.substr(0, good.size() - 1));
  });
  expect_error(ErrorKind::Data, {"rule 12", "after the last tensor", expected}, [&] {
    parse_text(good + "x");
  });
}

TEST(Safetensors, ChecksTheHeadersLengthFirst) {
  expect_error(ErrorKind::Data, {"rule 1"}, [] { parse_text("1234567"); });
  expect_error(ErrorKind::Data, {"rule 2", "longer than the file"}, [] {
    parse_text(safetensors_bytes("{}", 0, 1));
  });
  expect_error(ErrorKind::Data, {"rule 2", "beyond the limit"}, [] {
    parse_text(safetensors_bytes("{}", 0, -3));
  });
  expect_error(ErrorKind::Data, {"rule 2", "beyond the limit", "100000001"}, [] {
    parse_text(safetensors_bytes("{}", 0, 99'999'999));
  });
  expect_error(ErrorKind::Data, {"git-LFS pointer", "git lfs pull"}, [] {
    parse_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
  });
}

TEST(SafetensorsModel, OpensASingleFileOrAFolder) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "model.safetensors", safetensors_bytes(kGood, 17));

  for (const auto& path : {folder.path(), folder / "model.safetensors"}) {
    const auto model = SafetensorsModel::open(path);
    EXPECT_EQ(model.names(), (std::vector<std::string>{"a", "b", "s", "e"}));
    EXPECT_EQ(model.total_bytes(), 17U);
    EXPECT_EQ(model.bytes("a").size(), 8U);
    EXPECT_EQ(std::to_integer<int>(model.bytes("b")[0]), 8 * 7 + 1);
    EXPECT_TRUE(model.contains("e"));
    expect_error(ErrorKind::Data, {"has no tensor 'zz'"}, [&] { model.bytes("zz"); });
  }
}

TEST(SafetensorsModel, OpensShardsByTheirIndexAlone) {
  const test::TemporaryFolder folder;
  const auto one = [](const std::string& name) {
    return safetensors_bytes("{\"" + name + R"(":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})",
                             3);
  };
  test::write_text(folder / "m1.safetensors", one("x"));
  test::write_text(folder / "m2.safetensors", one("y"));
  const auto index = folder / "model.safetensors.index.json";

  test::write_text(index,
                   R"({"metadata":{},"weight_map":{"y":"m2.safetensors","x":"m1.safetensors"}})");
  EXPECT_EQ(SafetensorsModel::open(folder.path()).names(), (std::vector<std::string>{"y", "x"}));
  test::write_text(index, R"({"weight_map":{"z":"m2.safetensors"}})");
  expect_error(
      ErrorKind::Data, {"lacks tensor 'z'", "m2"}, [&] { SafetensorsModel::open(folder.path()); });
  test::write_text(index, R"({"weight_map":{"y":"m3.safetensors"}})");
  expect_error(ErrorKind::Data, {"no file", "m3"}, [&] { SafetensorsModel::open(folder.path()); });
  for (const std::string bad :
       {"../m2.safetensors", "/m2.safetensors", "a\\\\b.safetensors", "m2.bin", ""}) {
    test::write_text(index, R"({"weight_map":{"y":")" + bad + R"("}})");
    expect_error(
        ErrorKind::Data, {"plain shard name"}, [&] { SafetensorsModel::open(folder.path()); });
  }
  test::write_text(index, R"({"weight_map":{"y":"m2.safetensors","y":"m1.safetensors"}})");
  expect_error(ErrorKind::Data, {"index.json"}, [&] { SafetensorsModel::open(folder.path()); });
  test::write_text(index, R"({"weight_map":[]})");
  expect_error(ErrorKind::Data, {"weight_map"}, [&] { SafetensorsModel::open(folder.path()); });
  std::filesystem::remove(index);
  expect_error(
      ErrorKind::Data, {"holds no tensors"}, [&] { SafetensorsModel::open(folder.path()); });
}

TEST(SafetensorsModel, OpensTheSharedModels) {
  const char* shared = std::getenv("KAMERTON_SHARED");
  if (shared == nullptr || !std::filesystem::exists(std::filesystem::path(shared) / "models")) {
    GTEST_SKIP() << "no oracle files: KAMERTON_SHARED is not set or has no models";
  }
  const auto models = std::filesystem::path(shared) / "models";

  const auto mistral = SafetensorsModel::open(models / "tiny-mistral");
  EXPECT_EQ(mistral.files().size(), 4U);
  EXPECT_TRUE(mistral.unlisted().empty());
  EXPECT_TRUE(mistral.contains("model.layers.2.mlp.down_proj.weight"));
  const auto llama = SafetensorsModel::open(models / "stories260K");
  EXPECT_EQ(llama.entry("model.embed_tokens.weight").shape, (std::vector<int64_t>{512, 64}));
}

}  // namespace
}  // namespace kamerton::storage
