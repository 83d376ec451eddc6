// SPDX-License-Identifier: Apache-2.0
#include "data_file.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::ErrorKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(DataFile, RefusesWhatIsNoFileWithRecords) {
  const Scratch scratch;
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { DataFile::open(scratch / "none"); }),
              AllOf(HasSubstr("none"), HasSubstr("No such file")));
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { DataFile::open(scratch / "."); }),
              HasSubstr("is a folder"));
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { DataFile::open(scratch.write("e", "")); }),
              HasSubstr("is empty"));
  ASSERT_EQ(::mkfifo((scratch / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of(ErrorKind::Data, [&] { DataFile::open(scratch / "pipe"); }),
              HasSubstr("is a pipe"));
}

TEST(DataFile, NoticesThatItWasCutRemovedOrRewritten) {
  const Scratch scratch;
  const std::string bytes(1000, 'x');
  const DataFile cut = DataFile::open(scratch.write("cut", bytes));
  EXPECT_EQ(cut.read(990, 10), "xxxxxxxxxx");
  std::filesystem::resize_file(scratch / "cut", 500);
  EXPECT_THAT(error_of(ErrorKind::Io, [&] { cut.read(600, 10); }),
              AllOf(HasSubstr("cut to 500 bytes"), HasSubstr("byte 600"), HasSubstr("/cut")));

  const DataFile removed = DataFile::open(scratch.write("removed", bytes));
  std::filesystem::remove(scratch / "removed");
  EXPECT_THAT(error_of(ErrorKind::Io, [&] { removed.read(0, 1); }), HasSubstr("was removed"));

  const DataFile rewritten = DataFile::open(scratch.write("rewritten", bytes));
  std::ofstream(scratch / "rewritten") << std::string(1000, 'y');
  std::filesystem::last_write_time(
      scratch / "rewritten",
      std::filesystem::last_write_time(scratch / "rewritten") + std::chrono::seconds(5));
  EXPECT_THAT(error_of(ErrorKind::Io, [&] { rewritten.read(0, 1); }), HasSubstr("was rewritten"));

  const DataFile small = DataFile::open(scratch.write("small", "abc"));
  EXPECT_THAT(error_of(ErrorKind::Io, [&] { small.read(2, 10); }), HasSubstr("ends at byte 3"));
}

TEST(DataFile, ACopyThatAnotherRunUsesTooStaysReadable) {
  const Scratch scratch;
  const std::string path = scratch.write("copy", "head" + std::string(100, 'x'));
  const DataFile copy = DataFile::open_copy(path, 4, "data.jsonl.gz");
  std::filesystem::last_write_time(
      path, std::filesystem::last_write_time(path) + std::chrono::seconds(5));
  EXPECT_EQ(copy.read(0, 3), "xxx");
  std::filesystem::resize_file(path, 50);
  EXPECT_THAT(error_of(ErrorKind::Io, [&] { copy.read(60, 3); }),
              AllOf(HasSubstr("data.jsonl.gz"), HasSubstr("cut to 46 bytes")));
}

TEST(DataFile, FingerprintTellsSizeHeadAndTail) {
  const Scratch scratch;
  std::string bytes(300'000, 'x');
  const std::string before = DataFile::open(scratch.write("a", bytes)).fingerprint();
  EXPECT_EQ(DataFile::open(scratch.write("b", bytes)).fingerprint(), before);
  bytes.front() = 'y';
  EXPECT_NE(DataFile::open(scratch.write("c", bytes)).fingerprint(), before);
  bytes.front() = 'x';
  bytes.back() = 'y';
  EXPECT_NE(DataFile::open(scratch.write("d", bytes)).fingerprint(), before);
  bytes.back() = 'x';
  EXPECT_NE(DataFile::open(scratch.write("e", bytes + "x")).fingerprint(), before);
}

}  // namespace
}  // namespace kamerton::data
