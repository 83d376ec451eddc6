// SPDX-License-Identifier: Apache-2.0
#include "file_list.h"

#include <filesystem>

#include <gmock/gmock.h>

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class FileList : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"b.jsonl",
                             "a.jsonl",
                             "a10.csv.gz",
                             "notes.pdf",
                             ".hidden.jsonl",
                             "sub/c.txt",
                             "sub/deep/d.parquet",
                             "odd[1].jsonl"}) {
      std::filesystem::create_directories(std::filesystem::path(scratch_ / name).parent_path());
      scratch_.write(name, "x");
    }
    std::filesystem::create_directory(scratch_ / "empty");
    std::filesystem::create_directory_symlink(scratch_ / ".", scratch_ / "sub/circle");
  }
  /// Names below the scratch folder.
  std::vector<std::string> expand(const std::vector<std::string>& entries) const {
    std::vector<std::string> full;
    for (const std::string& entry : entries) {
      full.push_back(scratch_ / entry);
    }
    std::vector<std::string> found = expand_files(full);
    for (std::string& path : found) {
      path = path.substr((scratch_ / "").size());
    }
    return found;
  }
  std::string refused(const std::string& entry) const {
    return error_of(ErrorKind::Data, [&] { expand({entry}); });
  }

  Scratch scratch_;
};

TEST_F(FileList, PatternsAreSortedByByte) {
  EXPECT_THAT(expand({"*.jsonl"}), ElementsAre("a.jsonl", "b.jsonl", "odd[1].jsonl"));
  EXPECT_THAT(expand({"a*"}), ElementsAre("a.jsonl", "a10.csv.gz"));
  EXPECT_THAT(expand({"[b-z].jsonl"}), ElementsAre("b.jsonl"));
  EXPECT_THAT(expand({"*/?.txt"}), ElementsAre("sub/c.txt"));
}

TEST_F(FileList, TwoStarsGoThroughFoldersOfAnyDepth) {
  EXPECT_THAT(expand({"**/*.jsonl"}), ElementsAre("a.jsonl", "b.jsonl", "odd[1].jsonl"));
  EXPECT_THAT(expand({"sub/**/*.parquet"}), ElementsAre("sub/deep/d.parquet"));
  EXPECT_THAT(expand({"sub/**"}), ElementsAre("sub/c.txt", "sub/deep/d.parquet"));
}

TEST_F(FileList, AFolderIsAllItsDataFiles) {
  EXPECT_THAT(expand({"."}),
              ElementsAre("./a.jsonl",
                          "./a10.csv.gz",
                          "./b.jsonl",
                          "./odd[1].jsonl",
                          "./sub/c.txt",
                          "./sub/deep/d.parquet"));
}

TEST_F(FileList, WhatExistsIsTakenAsItIsAndOnce) {
  EXPECT_THAT(expand({"odd[1].jsonl", "b.jsonl", "*.jsonl"}),
              ElementsAre("odd[1].jsonl", "b.jsonl", "a.jsonl"));
  EXPECT_THAT(expand({"gone.jsonl"}), ElementsAre("gone.jsonl"));  // opening it says so
}

TEST_F(FileList, NothingFoundSaysWhatIsNear) {
  EXPECT_THAT(refused("*.json"),
              AllOf(HasSubstr("no file matches"), HasSubstr("a.jsonl"), Not(HasSubstr(".hidden"))));
  EXPECT_THAT(refused("nowhere/*/x.jsonl"), AllOf(HasSubstr("holds"), HasSubstr("b.jsonl")));
  EXPECT_THAT(refused("empty"), AllOf(HasSubstr("holds no data files"), HasSubstr("is empty")));
  EXPECT_THAT(refused("a.jsonl/*"), HasSubstr("no file matches"));
}

}  // namespace
}  // namespace kamerton::data
