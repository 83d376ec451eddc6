// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include <gmock/gmock.h>

#include "kamerton/core/error.h"

namespace kamerton::test {

/// Runs `body`; it must throw core::Error of this kind whose text contains every one of `parts`.
template <typename Body>
void expect_error(core::ErrorKind kind, std::initializer_list<std::string> parts, Body&& body) {
  try {
    body();
  } catch (const core::Error& error) {
    EXPECT_EQ(core::exit_code(kind), core::exit_code(error.kind())) << error.what();
    for (const auto& part : parts) {
      EXPECT_THAT(error.what(), testing::HasSubstr(part));
    }
    return;
  }
  ADD_FAILURE() << "nothing was thrown";
}

}  // namespace kamerton::test
