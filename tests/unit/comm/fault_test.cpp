// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/fault.h"

#include <chrono>

#include <gmock/gmock.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

TEST(Fault, IsReadFromText) {
  const Fault fault = parse_fault("kill:rank=1:step=7");
  EXPECT_EQ(fault.action, FaultAction::Kill);
  EXPECT_EQ(fault.rank, 1);
  EXPECT_EQ(fault.step, 7);
  EXPECT_EQ(parse_fault("").action, FaultAction::None);
  EXPECT_EQ(parse_fault("sleep:seconds=0.25").seconds, 0.25);
}

TEST(Fault, RefusesWhatItCannotRead) {
  for (const char* text : {"explode",
                           "kill:rank=x",
                           "kill:rank=-1",
                           "kill:step=7x",
                           "kill:when=7",
                           ":",
                           "kill:rank="}) {
    try {
      parse_fault(text);
      ADD_FAILURE() << text;
    } catch (const core::Error& error) {
      EXPECT_EQ(error.kind(), core::ErrorKind::Config);
      EXPECT_THAT(error.what(), testing::HasSubstr(text));
    }
  }
}

TEST(Fault, HappensAtItsRankAndStepAlone) {
  const Fault nan = parse_fault("nan:rank=2:step=5");
  EXPECT_EQ(fault_at_step(nan, 2, 5), FaultAction::Nan);
  EXPECT_EQ(fault_at_step(nan, 1, 5), FaultAction::None);
  EXPECT_EQ(fault_at_step(nan, 2, 6), FaultAction::None);
  EXPECT_EQ(fault_at_step(parse_fault("flip"), 9, 123), FaultAction::Flip);
  EXPECT_EQ(fault_at_step({}, 0, 0), FaultAction::None);
}

TEST(Fault, SleepsForTheSecondsItSays) {
  const auto begin = std::chrono::steady_clock::now();
  fault_at_step(parse_fault("sleep:seconds=0.05"), 0, 1);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(50));
}

}  // namespace
}  // namespace kamerton::comm
