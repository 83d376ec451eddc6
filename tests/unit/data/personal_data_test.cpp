// SPDX-License-Identifier: Apache-2.0
#include "personal_data.h"

#include <string>

#include <gtest/gtest.h>

#include "kamerton/core/random.h"

#include "text_damage.h"

namespace kamerton::data {
namespace {

/// Kinds found, in order, as letters: e-mail E, telephone P, PESEL N, IBAN I, card C.
std::string kinds(std::string_view text) {
  std::string result;
  for (const PersonalMatch& match : find_personal(text)) {
    result += "EPNIC"[static_cast<size_t>(match.kind)];
  }
  return result;
}

std::string clean(std::string_view text) {
  PersonalCounts counts = {};
  return redact_personal(text, counts);
}

TEST(PersonalData, FindsAddressesWithinSentences) {
  EXPECT_EQ(clean("Write to anna.k+news@mail.example.org."), "Write to [EMAIL].");
  EXPECT_EQ(clean("<ola@example.com>,b@c.pl"), "<[EMAIL]>,[EMAIL]");
  EXPECT_EQ(clean("44051401359@example.com"), "[EMAIL]");
}

TEST(PersonalData, LeavesWhatOnlyLooksLikeAnAddress) {
  for (const char* text : {"@handle", "a @ b", "user@host", "x@1.2", "a@b..com", "me@.com", "@"}) {
    EXPECT_EQ(kinds(text), "") << text;
  }
}

TEST(PersonalData, PeselNeedsItsCheckDigitAndADate) {
  EXPECT_EQ(clean("PESEL 44051401359, dalej"), "PESEL [PESEL], dalej");
  EXPECT_EQ(kinds("02070803628"), "N");  // 1902
  EXPECT_EQ(kinds("02270803624"), "N");  // 2002: month + 20
  EXPECT_EQ(kinds("44051401358"), "");   // check digit
  EXPECT_EQ(kinds("44151401359"), "");   // no month
  EXPECT_EQ(kinds("440514013590"), "");  // twelve digits
  EXPECT_EQ(kinds("x44051401359"), "");  // part of a word
  EXPECT_EQ(clean("in 2023 44051401359"), "in 2023 [PESEL]");
}

TEST(PersonalData, IbanNeedsItsLengthAndMod97) {
  EXPECT_EQ(clean("to PL61109010140000071219812874."), "to [IBAN].");
  EXPECT_EQ(clean("GB82 WEST 1234 5698 7654 32 please"), "[IBAN] please");
  EXPECT_EQ(clean("DE89 3704 0044 0532 0130 00"), "[IBAN]");
  EXPECT_EQ(kinds("DE89 3704 0044 0532 0130 01"), "");
  EXPECT_EQ(kinds("XX89370400440532013000"), "");
  EXPECT_EQ(kinds("DE8937040044053201300"), "");
}

TEST(PersonalData, CardNeedsLuhnPrefixAndLength) {
  EXPECT_EQ(clean("card 4111 1111 1111 1111 12/26"), "card [CARD] 12/26");
  EXPECT_EQ(clean("5500-0000-0000-0004"), "[CARD]");
  EXPECT_EQ(clean("378282246310005"), "[CARD]");
  EXPECT_EQ(kinds("4111111111111112"), "");     // Luhn
  EXPECT_EQ(kinds("9111111111111111"), "");     // no scheme
  EXPECT_EQ(kinds("0000000000000000"), "");     // Luhn holds, no scheme
  EXPECT_EQ(kinds("4111.1111.1111.1111"), "");  // a dotted number
}

TEST(PersonalData, PhoneNeedsAPlusOrAWordOrTheAmericanForm) {
  EXPECT_EQ(clean("call +48 601 234 567!"), "call [PHONE]!");
  EXPECT_EQ(clean("(212) 555-0100"), "[PHONE]");
  EXPECT_EQ(clean("212-555-0100"), "[PHONE]");
  EXPECT_EQ(clean("tel. 601-234-567"), "tel. [PHONE]");
  EXPECT_EQ(kinds("601 234 567"), "");  // a number like any other
  EXPECT_EQ(kinds("3.141592653589793"), "");
  EXPECT_EQ(kinds("2024-01-31 12:00"), "");
  EXPECT_EQ(kinds("1 + 12345678"), "");
}

TEST(PersonalData, NoBreakSpaceSeparates) {
  EXPECT_EQ(clean("+48\xC2\xA0"
                  "601\xC2\xA0"
                  "234\xC2\xA0"
                  "567"),
            "[PHONE]");
}

TEST(PersonalData, RandomNumbersRarelyAlarm) {
  const core::RandomStream random(7, "test.personal");
  int64_t found = 0;
  constexpr int64_t kNumbers = 20'000;
  for (int64_t i = 0; i < kNumbers; ++i) {
    found += kinds(std::to_string(10'000'000'000 +
                                  random.below(static_cast<uint64_t>(i), 89'999'999'999)))
                     .empty()
                 ? 0
                 : 1;
  }
  EXPECT_LT(found, kNumbers * 3 / 100);  // one in ten by the check digit, fewer by the date
}

TEST(PersonalData, RandomBytesNeitherCrashNorOverlap) {
  const core::RandomStream random(11, "test.personal");
  constexpr std::string_view kSigns = "0123456789+-() .@abPLDE89\xC2\xA0";
  for (uint64_t i = 0; i < 20'000; ++i) {
    std::string text;
    const uint64_t length = random.below(i * 64, 60);
    for (uint64_t j = 0; j < length; ++j) {
      text += kSigns[random.below(i * 64 + 1 + j, kSigns.size())];
    }
    size_t behind = 0;
    for (const PersonalMatch& match : find_personal(text)) {
      ASSERT_LE(behind, match.begin);
      ASSERT_LT(match.begin, match.end);
      ASSERT_LE(match.end, text.size());
      behind = match.end;
    }
  }
}

TEST(PersonalData, LongRunsOfDigitsAreLinear) {
  const std::string digits(4 << 20, '4');
  EXPECT_EQ(kinds(digits), "");
  std::string groups;
  for (int i = 0; i < 200'000; ++i) {
    groups += "4444 ";
  }
  EXPECT_EQ(kinds(groups), "");
}

TEST(TextDamage, TellsMojibakeFromForeignLetters) {
  EXPECT_TRUE(find_damage("caf\xC3\x83\xC2\xA9").mojibake);  // é
  EXPECT_TRUE(find_damage("z\xC3\x85\xE2\x80\x9A"
                          "oty")
                  .mojibake);                                                // ł by Windows-1252
  EXPECT_TRUE(find_damage("it\xC3\xA2\xE2\x82\xAC\xE2\x84\xA2s").mojibake);  // ’
  for (const char* text :
       {"café", "złoty", "São Paulo", "Ärger", "naïve âge", "Çà et là", "Дом", "日本語", "Åse"}) {
    EXPECT_FALSE(find_damage(text).mojibake) << text;
  }
}

TEST(TextDamage, SeesReplacementAndControlCharacters) {
  EXPECT_TRUE(find_damage("a\xEF\xBF\xBD").replacement);
  EXPECT_FALSE(find_damage("a\xEF\xBF\xBD").mojibake);
  EXPECT_TRUE(find_damage("a\x01").control);
  EXPECT_TRUE(find_damage("a\xC2\x85").control);
  EXPECT_TRUE(find_damage("a\xE2\x80\xAE").control);
  EXPECT_FALSE(find_damage("a\tb\r\n").control);
  EXPECT_TRUE(find_damage("\xC3").replacement == false);  // cut short: nothing is read beyond
}

}  // namespace
}  // namespace kamerton::data
