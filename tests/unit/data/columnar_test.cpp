// SPDX-License-Identifier: Apache-2.0
#include "columnar.h"

#include <gmock/gmock.h>

#include "kamerton/data/dataset.h"

#include "unit/data/columnar_samples.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<std::string> kColumns = {"messages", "text"};

/// Whether the library is beside the tests; without it the error that says what to run is tested.
bool has_library() {
  const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  return std::filesystem::exists(program / "libkamerton_arrow.so") ||
         std::filesystem::exists(program.parent_path() / "libkamerton_arrow.so");
}

std::string rows_of(const DataFile& file, ColumnarForm form, uint64_t limit = 1 << 20) {
  std::string text;
  convert_columnar(file, form, kColumns, limit, [&](std::string_view row) { text += row; });
  return text;
}

const std::vector<std::pair<const char*, const char*>> kFiles = {
    {"a.parquet", samples::kParquet},
    {"b.parquet", samples::kParquetZstd},
    {"c.arrow", samples::kArrowFile},
    {"d.feather", samples::kArrowFile},
    {"e.arrow", samples::kArrowStream}};

TEST(Columnar, IsRecognisedByBytesAndName) {
  const Scratch scratch;
  const auto form = [&](const char* name, const std::string& bytes, const char* format = "auto") {
    return detect_columnar(DataFile::open(scratch.write(name, bytes)), format);
  };
  EXPECT_EQ(form("x", samples::from_base64(samples::kParquet)), ColumnarForm::Parquet);
  EXPECT_EQ(form("x", samples::from_base64(samples::kArrowFile)), ColumnarForm::ArrowFile);
  EXPECT_EQ(form("x.arrow", samples::from_base64(samples::kArrowStream)),
            ColumnarForm::ArrowStream);
  EXPECT_EQ(form("x", samples::from_base64(samples::kArrowStream)), ColumnarForm::None);
  EXPECT_EQ(form("x", samples::from_base64(samples::kArrowStream), "arrow"),
            ColumnarForm::ArrowStream);
  EXPECT_EQ(form("x.jsonl", "{}"), ColumnarForm::None);
  for (const char* name : {"x.parquet", "x.arrow", "x.feather"}) {
    EXPECT_THAT(error_of(ErrorKind::Data, [&] { form(name, "<html>"); }),
                AllOf(HasSubstr(name), HasSubstr("not what its name")));
  }
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { form("x.feather", "FEA1...."); }),
              HasSubstr("first version"));
}

TEST(Columnar, RowsBecomeLinesOfJson) {
  const Scratch scratch;
  for (const auto& [name, bytes] : kFiles) {
    const DataFile file = DataFile::open(scratch.write(name, samples::from_base64(bytes)));
    const ColumnarForm form = detect_columnar(file, "auto");
    if (!has_library()) {
      EXPECT_THAT(error_of(ErrorKind::Config, [&, form = form] { rows_of(file, form); }),
                  AllOf(HasSubstr(name), HasSubstr("launch/setup --arrow")));
      continue;
    }
    EXPECT_EQ(rows_of(file, form),
              "{\"messages\":[{\"role\":\"user\",\"content\":\"q\\\"1\"},"
              "{\"role\":\"assistant\",\"content\":\"a\\n\"}],\"text\":\"x\"}\n"
              "{\"messages\":[{\"role\":\"user\",\"content\":\"\u017c\"},"
              "{\"role\":\"assistant\",\"content\":null}],\"text\":\"y\"}\n"
              "{\"messages\":null,\"text\":\"z\"}\n")
        << name;
    EXPECT_THAT(error_of(ErrorKind::Data, [&, form = form] { rows_of(file, form, 20); }),
                HasSubstr("data.max_expansion"));
  }
}

TEST(Columnar, DataSetsReadThem) {
  if (!has_library()) {
    GTEST_SKIP() << "libkamerton_arrow.so is not built (launch/setup --arrow)";
  }
  const Scratch scratch;
  const text::TokenizerBundle bundle = byte_bundle(nullptr);
  DataConfig config;
  config.index_dir = scratch / "index";
  config.layout = "text";
  for (const auto& [name, bytes] : kFiles) {
    config.train.push_back(scratch.write(name, samples::from_base64(bytes)));
  }
  for (int round = 0; round < 2; ++round) {  // the second finds what the first made
    const Dataset set = open_train(config, bundle, 4096);
    ASSERT_EQ(set.size(), 15);
    EXPECT_EQ(set.record(4).completion, "y");
    EXPECT_THAT(set.origin(4), HasSubstr("b.parquet:2"));
  }
  config.layout = "auto";
  config.columns.text = "nowhere";
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { open_train(config, bundle, 4096); }),
              HasSubstr("the column 'nowhere' is missing"));
}

TEST(Columnar, CutFilesAreRefusedByName) {
  if (!has_library()) {
    GTEST_SKIP() << "libkamerton_arrow.so is not built (launch/setup --arrow)";
  }
  const Scratch scratch;
  for (const auto& [name, bytes] : kFiles) {
    const std::string whole = samples::from_base64(bytes);
    for (const size_t size : {whole.size() / 3, whole.size() / 2, whole.size() - 20}) {
      const DataFile file = DataFile::open(scratch.write(name, whole.substr(0, size)));
      EXPECT_THAT(error_of(ErrorKind::Data, [&] { rows_of(file, detect_columnar(file, "auto")); }),
                  AllOf(HasSubstr(name), HasSubstr("cannot be read")))
          << size;
    }
  }
}

}  // namespace
}  // namespace kamerton::data
