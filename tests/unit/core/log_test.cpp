// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace kamerton::core {
namespace {

using testing::HasSubstr;

class Log : public testing::Test {
 protected:
  void TearDown() override { configure_log(0, 1, LogLevel::Info); }
};

TEST_F(Log, SpeaksOnStderrOnly) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  log_info("hello {}");  // braces are text, not a format

  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("hello {}"));
}

TEST_F(Log, LetsOtherRanksOnlyWarnAndNamesThem) {
  configure_log(3, 4, LogLevel::Info);
  testing::internal::CaptureStderr();
  log_info("quiet");
  log_warning("loud");
  log_error("louder");
  const std::string text = testing::internal::GetCapturedStderr();

  EXPECT_THAT(text, testing::Not(HasSubstr("quiet")));
  EXPECT_THAT(text, HasSubstr("warning: rank 3: loud"));
  EXPECT_THAT(text, HasSubstr("error: rank 3: louder"));
}

TEST_F(Log, ObeysTheLevel) {
  configure_log(0, 1, LogLevel::Info);
  testing::internal::CaptureStderr();
  log_debug("detail");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");

  configure_log(0, 1, LogLevel::Debug);
  testing::internal::CaptureStderr();
  log_debug("detail");
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("debug: detail"));
}

}  // namespace
}  // namespace kamerton::core
