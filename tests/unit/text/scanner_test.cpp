// SPDX-License-Identifier: Apache-2.0
// The hand-written scanners cut text exactly as the regular expressions they stand for.
#include "scanner.h"

#include <gtest/gtest.h>

#include "expression.h"

namespace kamerton::text {
namespace {

std::vector<Span> by_expression(std::string_view pattern, std::string_view s) {
  std::vector<Span> out;
  Regex(pattern, "test").each_match(s, [&](Span m) { out.push_back(m); });
  return out;
}

uint64_t next(uint64_t& state) {
  state += 0x9E3779B97F4A7C15ull;
  uint64_t z = state;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return z ^ z >> 31;
}

/// Letters, digits, blanks, marks and apostrophes of many scripts, and now and then any character
/// at all.
std::string random_text(uint64_t& state) {
  static const std::u32string pool =
      U"abcsStTdmlLvVeErR'''\u2019 \u00a0\t\n\r\n  "
      U"012\u0663\u00bd\u2167.,!-_/()\u00e9\u0301\u017f\u212a\u0130"
      U"\u6f22\u304b\u3099\u0939\u093f\u05d0\u0627\U0001F600\u200d\u2581\u180e\u0085\u2028\u3000"
      U"\ufeff\u16ee\u24b6";
  std::string out;
  const uint64_t count = next(state) % 24;
  for (uint64_t i = 0; i < count; ++i) {
    uint32_t c = pool[next(state) % pool.size()];
    if (next(state) % 16 == 0) {
      c = static_cast<uint32_t>(next(state) % 0x11000);
      c = c >= 0xD800 && c < 0xE000 ? 0x41 : c;
    }
    append_char(out, c);
  }
  return out;
}

class ScannerFuzz : public testing::TestWithParam<std::pair<Scan, std::string_view>> {};

TEST_P(ScannerFuzz, CutsAsTheExpressionOnRandomText) {
  const auto [kind, pattern] = GetParam();
  ASSERT_EQ(scanner_for(pattern), kind);
  const Regex regex(pattern, "test");
  uint64_t state = 20260 + static_cast<uint64_t>(kind);
  for (int round = 0; round < 60000; ++round) {
    const std::string s = random_text(state);
    std::vector<Span> expected;
    regex.each_match(s, [&](Span m) { expected.push_back(m); });
    std::vector<Span> got;
    scan(kind, s, {0, static_cast<uint32_t>(s.size())}, got);
    ASSERT_EQ(got, expected) << "round " << round << ": " << testing::PrintToString(s);
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         ScannerFuzz,
                         testing::Values(std::pair(Scan::Gpt2, kGpt2Pattern),
                                         std::pair(Scan::Llama3, kLlama3Pattern),
                                         std::pair(Scan::Qwen2, kQwen2Pattern),
                                         std::pair(Scan::Cl100k, kCl100kPattern),
                                         std::pair(Scan::O200k, kO200kPattern)));

TEST(Regex, ReadsBlanksAsWhiteSpaceOnly) {
  EXPECT_EQ(by_expression(R"(\s)", "a\u180e\u0085b"), (std::vector<Span>{{4, 6}}));
  EXPECT_EQ(by_expression(R"([^\s]+)", "a \u3000b"), (std::vector<Span>{{0, 1}, {5, 6}}));
}

}  // namespace
}  // namespace kamerton::text
