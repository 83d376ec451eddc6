// SPDX-License-Identifier: Apache-2.0
// Damaged files are refused with a rule or read within their bounds; nothing else may happen (run
// under ASan too).
#include <gtest/gtest.h>

#include "safetensors_bytes.h"
#include "support/byte_mutator.h"
#include "support/case_count.h"
#include "support/expect_error.h"

namespace kamerton::storage {
namespace {

constexpr uint64_t kSeed = 20261;
const uint64_t kCases = test::case_count(60'000);

const std::vector<std::string> kWords = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         ":",
                                         "\"",
                                         "{}",
                                         "[]",
                                         "-1",
                                         "1e3",
                                         "0.5",
                                         "null",
                                         "true",
                                         "\"dtype\"",
                                         "\"shape\"",
                                         "\"data_offsets\"",
                                         "\"__metadata__\"",
                                         "\"F32\"",
                                         "\"BF16\"",
                                         "\"F8_E4M3\"",
                                         "18446744073709551615",
                                         "18446744073709551616",
                                         "281474976710655",
                                         "9223372036854775807",
                                         "\\ud800",
                                         "\\u0000",
                                         "\xff",
                                         "\xef\xbb\xbf",
                                         "[[[[[[[[",
                                         "{\"a\":{\"a\":{\"a\":"};

std::vector<std::string> corpus() {
  return {
      safetensors_bytes("{}", 0),
      safetensors_bytes(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})", 24),
      safetensors_bytes(
          R"({"__metadata__":{"format":"pt","x":"y"},"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]},)"
          R"("b":{"dtype":"I64","shape":[],"data_offsets":[8,16]},"c":{"dtype":"U8","shape":[0],"data_offsets":[16,16]}})",
          16)};
}

/// Everything that a caller may rely on after a parse.
void check_invariants(const SafetensorsHeader& header, size_t file_size) {
  uint64_t end = header.entries.empty() ? file_size : header.entries.front().offset;
  for (const auto& entry : header.entries) {
    ASSERT_EQ(entry.offset, end);
    ASSERT_EQ(entry.size, static_cast<uint64_t>(entry.num_elements) * size_of(entry.dtype));
    end = entry.offset + entry.size;
  }
  ASSERT_EQ(end, file_size);
}

TEST(SafetensorsFuzz, DamagedFilesAreRefusedWithARuleOrReadWithinBounds) {
  const auto seeds = corpus();
  const test::ByteMutator mutate(kSeed, kWords);
  uint64_t accepted = 0;
  for (uint64_t i = 0; i < kCases; ++i) {
    auto bytes = mutate(seeds[i % seeds.size()], i);
    if (i % 3 == 0 && bytes.size() >= 8) {
      // Repair the length, so that damage reaches the header's grammar.
      const auto fixed = safetensors_bytes(bytes.substr(8), 0);
      bytes = i % 2 == 0 ? fixed : fixed + std::string(24, 'd');
    }
    try {
      check_invariants(parse_text(bytes), bytes.size());
      ++accepted;
    } catch (const core::Error& error) {
      const std::string text = error.what();
      ASSERT_EQ(error.kind(), core::ErrorKind::Data) << i << ": " << text;
      ASSERT_TRUE(text.find("rule ") != std::string::npos ||
                  text.find("our limit") != std::string::npos)
          << i << ": " << text;
    }
  }
  EXPECT_GT(accepted, kCases / 1000)
      << "the mutator damages too much to test anything but the first check";
  EXPECT_LT(accepted, kCases / 2);
}

TEST(SafetensorsFuzz, EveryTruncationIsRefused) {
  for (const auto& whole : corpus()) {
    for (size_t size = 0; size < whole.size(); ++size) {
      EXPECT_THROW(parse_text(whole.substr(0, size)), core::Error) << size;
    }
  }
}

}  // namespace
}  // namespace kamerton::storage
