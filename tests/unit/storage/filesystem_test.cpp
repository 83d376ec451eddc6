// SPDX-License-Identifier: Apache-2.0
// One contract, run on the real file system and on its in-memory twin.
#include "kamerton/storage/filesystem.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/faulty_filesystem.h"
#include "support/memory_filesystem.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

using core::ErrorKind;
using test::expect_error;

class FileSystemContract : public testing::TestWithParam<bool> {
 protected:
  FileSystem& files() {
    return GetParam() ? posix_filesystem() : static_cast<FileSystem&>(memory_);
  }
  std::filesystem::path root() const { return folder_.path(); }
  void SetUp() override { files().make_directories(root()); }

 private:
  test::TemporaryFolder folder_;
  test::MemoryFileSystem memory_;
};

TEST_P(FileSystemContract, WritesReadsListsAndRemoves) {
  files().make_directories(root() / "a" / "b");
  files().write_file(root() / "a" / "x", "one");
  files().write_file(root() / "a" / "x", "two!");

  EXPECT_EQ(files().read_file(root() / "a" / "x", 100), "two!");
  EXPECT_EQ(files().file_size(root() / "a" / "x"), 4U);
  EXPECT_EQ(files().list(root() / "a"), (std::vector<std::string>{"b", "x"}));
  EXPECT_TRUE(files().is_directory(root() / "a" / "b"));
  EXPECT_FALSE(files().is_directory(root() / "a" / "x"));
  files().remove_all(root() / "a");
  files().remove_all(root() / "a");
  EXPECT_TRUE(files().list(root()).empty());
  EXPECT_TRUE(files().list(root() / "never").empty());
}

TEST_P(FileSystemContract, RenamesFoldersAndReplacesFiles) {
  files().make_directories(root() / "old");
  files().write_file(root() / "old" / "x", "text");
  files().write_file(root() / "f", "new");
  files().write_file(root() / "g", "before");

  files().rename(root() / "old", root() / "new");
  files().rename(root() / "f", root() / "g");
  files().sync_directory(root());

  EXPECT_EQ(files().read_file(root() / "new" / "x", 100), "text");
  EXPECT_EQ(files().read_file(root() / "g", 100), "new");
  EXPECT_EQ(files().list(root()), (std::vector<std::string>{"g", "new"}));
}

TEST_P(FileSystemContract, ErrorsNameThePathAndTheKind) {
  files().write_file(root() / "file", "text");

  expect_error(ErrorKind::Data, {"gone"}, [&] { files().read_file(root() / "gone", 100); });
  expect_error(ErrorKind::Data, {"file"}, [&] { files().read_file(root() / "file", 3); });
  expect_error(
      ErrorKind::Output, {"none/x"}, [&] { files().write_file(root() / "none" / "x", "text"); });
  expect_error(
      ErrorKind::Output, {"file/sub"}, [&] { files().make_directories(root() / "file" / "sub"); });
  EXPECT_EQ(files().file_size(root() / "gone"), std::nullopt);
  EXPECT_GT(files().free_bytes(root() / "not" / "yet"), 0U);
}

TEST_P(FileSystemContract, AnAtomicWriteThatFailsAnywhereLeavesOldOrNew) {
  const auto path = root() / "state";
  files().write_file(path, "old");
  for (const bool forever : {false, true}) {
    for (int fail_at = 0; fail_at < 4; ++fail_at) {
      files().write_file(path, "old");
      test::FaultyFileSystem faulty(files(), fail_at, forever);
      bool failed = false;
      try {
        write_file_atomic(faulty, path, "new");
      } catch (const core::Error&) {
        failed = true;
      }
      const auto text = files().read_file(path, 100);
      EXPECT_EQ(text, fail_at < 2 ? "old" : "new") << fail_at;
      EXPECT_EQ(failed, fail_at < 3) << fail_at;
    }
  }
  EXPECT_EQ(files().list(root()).front(), "state");
}

INSTANTIATE_TEST_SUITE_P(PosixAndMemory, FileSystemContract, testing::Bool());

TEST(MemoryFileSystem, IsFullWhenItsCapacityIsUsed) {
  test::MemoryFileSystem files(10);
  files.make_directories("/d");
  files.write_file("/d/a", "12345678");

  expect_error(ErrorKind::Io, {"no space", "/d/b"}, [&] { files.write_file("/d/b", "123"); });
  EXPECT_EQ(files.free_bytes("/d"), 2U);
}

}  // namespace
}  // namespace kamerton::storage
