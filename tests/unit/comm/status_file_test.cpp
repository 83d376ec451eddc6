// SPDX-License-Identifier: Apache-2.0
#include "status_file.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

class StatusFileTest : public testing::Test {
 protected:
  StatusFileTest()
      : folder_(testing::TempDir() + "kamerton_status_" +
                std::to_string(testing::UnitTest::GetInstance()->random_seed()) +
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::create_directories(folder_);
  }
  ~StatusFileTest() override { std::filesystem::remove_all(folder_); }
  std::string text(int rank) const {
    std::ostringstream content;
    content << std::ifstream(status_path(folder_, rank)).rdbuf();
    return content.str();
  }
  std::filesystem::path folder_;
};

TEST_F(StatusFileTest, HoldsOneValueALineOf64Bytes) {
  StatusFile file(folder_, 3);
  file.set(StatusField::Step, 812);
  file.set(StatusField::Op, "reduce_scatter");
  const std::string content = text(3);
  EXPECT_EQ(content.size(), 64u * static_cast<size_t>(StatusField::kCount));
  for (size_t end = 63; end < content.size(); end += 64) {
    EXPECT_EQ(content[end], '\n');
  }
  EXPECT_EQ(status_value(content, "kamerton"), "status-1");
  EXPECT_EQ(status_value(content, "rank"), "3");
  EXPECT_EQ(status_value(content, "step"), "812");
  EXPECT_EQ(status_value(content, "op"), "reduce_scatter");
  EXPECT_EQ(status_value(content, "signal"), "-");
}

TEST_F(StatusFileTest, ReplacesALongerValueWhole) {
  StatusFile file(folder_, 0);
  file.set(StatusField::Phase, "a long phase");
  file.set(StatusField::Phase, "save");
  EXPECT_EQ(status_value(text(0), "phase"), "save");
}

TEST_F(StatusFileTest, CutsWhatIsTooLongAndKeepsTheLines) {
  StatusFile file(folder_, 0);
  file.set(StatusField::Host, std::string(500, 'h'));
  file.set(StatusField::Phase, "two\nlines");
  EXPECT_EQ(status_value(text(0), "host"), std::string(StatusFile::kValue, 'h'));
  EXPECT_EQ(status_value(text(0), "phase"), "two lines");
  EXPECT_EQ(status_value(text(0), "pid"), "-");
}

TEST_F(StatusFileTest, SaysWhenItCannotBeMade) {
  try {
    StatusFile file(folder_ / "missing", 0);
    FAIL() << "no error";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Output);
  }
}

TEST(StatusValue, IsEmptyForTextThatIsNoStatusFile) {
  for (const char* text : {"", "step", "step\n", "\n\n\n", "stepp 7\n", " step 7\n"}) {
    EXPECT_EQ(status_value(text, "step"), "") << text;
  }
  EXPECT_EQ(status_value("a 1\nstep    \nb 2", "step"), "");
  EXPECT_EQ(status_value("a 1\nb 2", "b"), "2");
}

}  // namespace
}  // namespace kamerton::comm
