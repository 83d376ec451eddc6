// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/mapped_file.h"

#include <filesystem>
#include <vector>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace kamerton::storage {
namespace {

using core::ErrorKind;
using test::expect_error;

TEST(MappedFile, GivesTheBytesAndChecksBounds) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a", "hello");
  auto file = MappedFile::open(folder / "a");

  EXPECT_EQ(file.text(), "hello");
  EXPECT_EQ(file.span(1, 3).size(), 3U);
  EXPECT_EQ(file.span(5, 0).size(), 0U);
  expect_error(ErrorKind::Data, {"ends before", "5"}, [&] { file.span(3, 3); });
  expect_error(ErrorKind::Data, {"ends before"}, [&] { file.span(6, 0); });
  expect_error(ErrorKind::Data, {"ends before"}, [&] { file.span(1, UINT64_MAX); });
}

TEST(MappedFile, SaysWhatIsWrongWithAPath) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "empty", "");
  ::mkfifo((folder / "pipe").c_str(), 0600);

  expect_error(ErrorKind::Data, {"no file", "gone"}, [&] { MappedFile::open(folder / "gone"); });
  expect_error(ErrorKind::Data, {"is a folder"}, [&] { MappedFile::open(folder.path()); });
  expect_error(ErrorKind::Data, {"is empty"}, [&] { MappedFile::open(folder / "empty"); });
  expect_error(ErrorKind::Data, {"not a regular file"}, [&] { MappedFile::open(folder / "pipe"); });
  EXPECT_EQ(MappedFile::open(folder / "empty", true).size(), 0U);
}

TEST(MappedFile, SurvivesAnUnlinkAndNoticesAChange) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a", "hello");
  test::write_text(folder / "b", "hello");
  const auto unlinked = MappedFile::open(folder / "a");
  const auto changed = MappedFile::open(folder / "b");

  std::filesystem::remove(folder / "a");
  std::filesystem::resize_file(folder / "b", 2);

  EXPECT_EQ(unlinked.text(), "hello");
  EXPECT_NO_THROW(unlinked.check_unchanged());
  expect_error(ErrorKind::Io, {"changed while it was in use", "2 bytes now"}, [&] {
    changed.check_unchanged();
  });
}

TEST(MappedFile, ReadingAFileThatWasCutShortIsAnErrorAndNoSignal) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a", std::string(100'000, 'x'));
  const auto file = MappedFile::open(folder / "a");
  std::vector<std::byte> bytes(10'000);
  file.read(90'000, bytes);
  EXPECT_EQ(bytes.back(), std::byte{'x'});

  std::filesystem::resize_file(folder / "a", 95'000);

  EXPECT_NO_THROW(file.read(80'000, bytes));
  expect_error(ErrorKind::Io, {"cut short", "95000 bytes now", "100000 bytes"}, [&] {
    file.read(90'000, bytes);
  });
  expect_error(ErrorKind::Data, {"at most 100000"}, [&] { file.read(95'000, bytes); });
}

TEST(MappedFile, MovesKeepItsBytesWhereTheyAre) {
  const test::TemporaryFolder folder;
  test::write_text(folder / "a", "hello");
  auto first = MappedFile::open(folder / "a");
  const auto* address = first.bytes().data();

  MappedFile second = std::move(first);
  second.advise(Access::WillNeed);
  second.advise(Access::Random, 2, UINT64_MAX);

  EXPECT_EQ(second.bytes().data(), address);
  EXPECT_EQ(first.size(),
            0U);  // NOLINT(bugprone-use-after-move): the state after a move is promised
}

}  // namespace
}  // namespace kamerton::storage
