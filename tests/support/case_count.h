// SPDX-License-Identifier: Apache-2.0
// How many cases a fuzz test runs.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace kamerton::test {

/// KAMERTON_FUZZ_CASES when it is a number above 0, else `otherwise`, which keeps CI short.
inline uint64_t case_count(uint64_t otherwise) {
  const char* wish = std::getenv("KAMERTON_FUZZ_CASES");
  const uint64_t cases = wish == nullptr ? 0 : std::strtoull(wish, nullptr, 10);
  return cases > 0 ? cases : otherwise;
}

}  // namespace kamerton::test
