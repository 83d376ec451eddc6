// SPDX-License-Identifier: Apache-2.0
#include "record_index.h"

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::HasSubstr;

/// Anonymous memory of the process; mapped files do not count.
int64_t anonymous_kib() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word == "RssAnon:") {
      int64_t value = 0;
      status >> value;
      return value;
    }
  }
  return 0;
}

std::vector<std::filesystem::path> tables_in(const std::string& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".records") {
      found.push_back(entry.path());
    }
  }
  return found;
}

IndexOptions on_disk(const Scratch& scratch) {
  return {.max_record_bytes = 1 << 20, .folder = scratch / "index", .small_file_bytes = 0};
}

void expect_same(const RecordIndex& a, const RecordIndex& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.entries().data(), b.entries().data(), a.entries().size_bytes()), 0);
  EXPECT_EQ(a.faults().count, b.faults().count);
  EXPECT_EQ(a.faults().first_line, b.faults().first_line);
}

TEST(RecordIndex, OnDiskEqualsInMemory) {
  const Scratch scratch;
  std::string bytes;
  for (int i = 0; i < 10'000; ++i) {
    bytes += "{\"text\":\"" + std::string(i % 50, 'x') + "\"}\n" + (i % 9 == 0 ? "\n\xFF\n" : "");
  }
  const DataFile file = DataFile::open(scratch.write("a.jsonl", bytes));
  const RecordIndex small =
      RecordIndex::build(file, FileForm::Jsonl, {.max_record_bytes = 1 << 20, .folder = {}});
  const RecordIndex built = RecordIndex::build(file, FileForm::Jsonl, on_disk(scratch));
  const RecordIndex found = RecordIndex::build(file, FileForm::Jsonl, on_disk(scratch));
  EXPECT_EQ(small.faults().count, 1112);
  expect_same(small, built);
  expect_same(small, found);
  EXPECT_EQ(tables_in(scratch / "index").size(), 1);
}

TEST(RecordIndex, AChangedFileAndATornTableAreIndexedAnew) {
  const Scratch scratch;
  const std::string path = scratch.write("a.jsonl", "{}\n{}\n");
  const IndexOptions options = on_disk(scratch);
  EXPECT_EQ(RecordIndex::build(DataFile::open(path), FileForm::Jsonl, options).size(), 2);
  const auto table = tables_in(scratch / "index").at(0);
  std::filesystem::resize_file(table, std::filesystem::file_size(table) - 1);
  EXPECT_EQ(RecordIndex::build(DataFile::open(path), FileForm::Jsonl, options).size(), 2);
  std::ofstream(table) << "garbage";
  EXPECT_EQ(RecordIndex::build(DataFile::open(path), FileForm::Jsonl, options).size(), 2);
  std::ofstream(path, std::ios::app) << "{}\n";
  EXPECT_EQ(RecordIndex::build(DataFile::open(path), FileForm::Jsonl, options).size(), 3);
}

TEST(RecordIndex, TablesThatNobodyOpensGoWhenAnotherIsMade) {
  const Scratch scratch;
  const IndexOptions options = on_disk(scratch);
  const auto build = [&](const char* name) {
    if (!std::filesystem::exists(scratch / name)) {
      scratch.write(name, "{\"text\":\"a\"}\n");
    }
    return RecordIndex::build(DataFile::open(scratch / name), FileForm::Jsonl, options);
  };
  build("a.jsonl");
  const auto first = tables_in(*options.folder).front();
  const auto stranger = std::filesystem::path(*options.folder) / "notes.txt";
  std::ofstream(stranger) << "mine";
  const auto old = std::filesystem::file_time_type::clock::now() - std::chrono::hours(24 * 31);
  const auto age_both = [&] {
    std::filesystem::last_write_time(first, old);
    std::filesystem::last_write_time(stranger, old);
  };
  age_both();
  build("b.jsonl");
  EXPECT_FALSE(std::filesystem::exists(first));
  EXPECT_TRUE(std::filesystem::exists(stranger)) << "only what is named as a table";
  build("a.jsonl");
  age_both();
  build("a.jsonl");  // opened: it is in use
  build("c.jsonl");
  EXPECT_TRUE(std::filesystem::exists(first));
}

TEST(RecordIndex, AFolderThatCannotBeWrittenIsSaid) {
  const Scratch scratch;
  const DataFile file = DataFile::open(scratch.write("a.jsonl", "{}\n"));
  IndexOptions options = on_disk(scratch);
  options.folder = scratch.write("file", "x") + "/below";
  EXPECT_THAT(
      error_of(ErrorKind::Output, [&] { RecordIndex::build(file, FileForm::Jsonl, options); }),
      HasSubstr("data.index_dir"));
}

TEST(RecordIndex, MemoryStaysFlatForAMillionLines) {
  const Scratch scratch;
  {
    std::ofstream out(scratch / "big.jsonl", std::ios::binary);
    for (int i = 0; i < 1'000'000; ++i) {
      out << "{\"text\":\"" << i << "\"}\n";
    }
  }
  const DataFile file = DataFile::open(scratch / "big.jsonl");
  const int64_t before = anonymous_kib();
  const RecordIndex index = RecordIndex::build(file, FileForm::Jsonl, on_disk(scratch));
  const int64_t grown = anonymous_kib() - before;
  ASSERT_EQ(index.size(), 1'000'000);
  EXPECT_EQ(file.read(index.entries()[999'999].offset, index.entries()[999'999].length),
            "{\"text\":\"999999\"}");
  EXPECT_EQ(index.entries()[999'999].line, 1'000'000);
  EXPECT_LT(grown, 6 * 1024) << "KiB";
}

}  // namespace
}  // namespace kamerton::data
