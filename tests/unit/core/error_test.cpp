// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/error.h"

#include <new>

#include <gtest/gtest.h>

namespace kamerton::core {
namespace {

TEST(Error, SaysWhatGotAllowedAndHintAndLeavesOutEmptyParts) {
  EXPECT_EQ(to_text({.where = "mesh.build",
                     .what = "ranks do not divide",
                     .got = "3",
                     .allowed = "1, 2, 4",
                     .hint = "-np 4"}),
            "[mesh.build] ranks do not divide; got 3; allowed 1, 2, 4; try -np 4");
  EXPECT_EQ(to_text({.where = "a.b", .what = "broken"}), "[a.b] broken");
}

TEST(Error, MapsEachKindToItsExitCode) {
  EXPECT_EQ(exit_code(ErrorKind::Config), 64);
  EXPECT_EQ(exit_code(ErrorKind::Data), 65);
  EXPECT_EQ(exit_code(ErrorKind::Internal), 70);
  EXPECT_EQ(exit_code(ErrorKind::Output), 73);
  EXPECT_EQ(exit_code(ErrorKind::Io), 74);
  EXPECT_EQ(exit_code(ErrorKind::Preempted), 75);
  EXPECT_EQ(exit_code(ErrorKind::Comm), 76);
  EXPECT_EQ(exit_code(ErrorKind::Permission), 77);
  EXPECT_EQ(exit_code(ErrorKind::Numeric), 78);
  EXPECT_EQ(exit_code(ErrorKind::NoProgress), 79);
}

TEST(Error, KeepsTheWordsOfAnotherRank) {
  const std::string words = "[data.stream] rank 3: the file vanished";
  const Error error(ErrorKind::Data, words);

  EXPECT_EQ(error.what(), words);
  EXPECT_EQ(error.kind(), ErrorKind::Data);
}

TEST(Error, MapsForeignExceptions) {
  EXPECT_EQ(exit_code(Error(ErrorKind::Comm, {.where = "x", .what = "y"})), 76);
  EXPECT_EQ(exit_code(std::bad_alloc()), 74);
  EXPECT_EQ(exit_code(std::runtime_error("other")), 70);
}

}  // namespace
}  // namespace kamerton::core
