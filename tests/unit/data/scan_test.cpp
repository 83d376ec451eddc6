// SPDX-License-Identifier: Apache-2.0
#include "scan.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "unit/data/support.h"
#include "utf8.h"

namespace kamerton::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Scanned {
  std::vector<std::string> records;
  std::vector<uint32_t> lines;
  std::vector<bool> continues;
  Faults faults;
};

Scanned scan_text(const std::string& bytes, FileForm form, uint64_t max_bytes = 1 << 20) {
  const Scratch scratch;
  const DataFile file = DataFile::open(scratch.write("x", bytes));
  Scanned result;
  result.faults = scan(file, form, max_bytes, [&](const Entry& entry) {
    result.records.push_back(file.read(entry.offset, entry.length & ~kContinues));
    result.lines.push_back(entry.line);
    result.continues.push_back((entry.length & kContinues) != 0);
  });
  return result;
}

TEST(Scan, FindsLinesWithMarkCarriageReturnsBlanksAndNoLastLineEnd) {
  const Scanned found =
      scan_text("\xEF\xBB\xBF{\"a\":1}\r\n\r\n  \t\n{\"b\":2}\n\n{\"c\":3}", FileForm::Jsonl);
  EXPECT_THAT(found.records, ElementsAre("{\"a\":1}", "{\"b\":2}", "{\"c\":3}"));
  EXPECT_THAT(found.lines, ElementsAre(1, 4, 6));
  EXPECT_EQ(found.faults.count, 0);
}

TEST(Scan, ByteOrderMarkIsSkippedOnlyAtTheStart) {
  const Scanned found = scan_text("{}\n\xEF\xBB\xBF{}\n", FileForm::Jsonl);
  EXPECT_THAT(found.records, ElementsAre("{}", "\xEF\xBB\xBF{}"));
}

TEST(Scan, NamesTheFirstBadByteAndCountsBadLines) {
  const std::vector<std::pair<std::string, uint64_t>> bad = {
      {"ab\xFFz", 3},           // never a byte of UTF-8
      {"\xC0\x80", 1},          // overlong
      {"\xE0\x80\x80", 2},      // overlong
      {"\xED\xA0\x80", 2},      // surrogate
      {"\xF4\x90\x80\x80", 2},  // beyond U+10FFFF
      {"a\xE2\x82", 3},         // cut at the end of the line
      {std::string("ab\0c", 4), 3},
      {"\x80", 1},
  };
  for (const auto& [line, byte] : bad) {
    const Scanned found =
        scan_text("{}\n" + line + "\n{\"x\":\"\xE2\x82\xAC\"}\n\xFE\n", FileForm::Jsonl);
    EXPECT_EQ(found.faults.count, 2) << testing::PrintToString(line);
    EXPECT_EQ(found.faults.first_line, 2);
    EXPECT_EQ(found.faults.first_byte, byte) << testing::PrintToString(line);
    EXPECT_THAT(found.records, ElementsAre("{}", "{\"x\":\"\xE2\x82\xAC\"}"));
  }
}

TEST(Scan, LeavesOutLinesBeyondTheLimit) {
  const Scanned found = scan_text("12345\n123456\n1\n", FileForm::Jsonl, 5);
  EXPECT_THAT(found.records, ElementsAre("12345", "1"));
  EXPECT_EQ(found.faults.first, Fault::TooLong);
  EXPECT_EQ(found.faults.first_line, 2);
  EXPECT_EQ(found.faults.first_byte, 6);
}

TEST(Scan, LinesAndCharactersMayCrossTheReadBuffer) {
  // A three-byte character at each of the places around 1 MiB, and a line of several buffers.
  for (size_t shift = 0; shift < 4; ++shift) {
    const std::string line = std::string((1 << 20) - shift, 'a') + "\xE2\x82\xAC" + "b";
    const Scanned found =
        scan_text(line + "\nx\n" + line + line + line + "\r\n", FileForm::Jsonl, 1 << 24);
    ASSERT_EQ(found.records.size(), 3);
    EXPECT_EQ(found.records[0], line);
    EXPECT_EQ(found.records[2], line + line + line);
    EXPECT_EQ(found.faults.count, 0);
  }
}

TEST(Scan, FindsTheElementsOfAnArray) {
  const Scanned found =
      scan_text("\xEF\xBB\xBF [\n {\"a\": \"]},[\\\"\\\\\"},\n [1, [2]] ,\"x\\\\\",\n  7\n]\n ",
                FileForm::JsonArray);
  EXPECT_THAT(found.records,
              ElementsAre("{\"a\": \"]},[\\\"\\\\\"}", "[1, [2]]", "\"x\\\\\"", "7"));
  EXPECT_THAT(found.lines, ElementsAre(2, 3, 3, 4));
  EXPECT_EQ(scan_text("[]", FileForm::JsonArray).records.size(), 0);
}

TEST(Scan, ElementsMayCrossTheReadBuffer) {
  for (size_t shift = 0; shift < 6; ++shift) {
    const std::string element =
        "{\"t\":\"" + std::string((1 << 20) - 10 - shift, 'a') + "\xE2\x82\xAC\\\"\"}";
    const Scanned found =
        scan_text("[" + element + "," + element + "]", FileForm::JsonArray, 1 << 24);
    EXPECT_EQ(found.faults.count, 0);
    EXPECT_THAT(found.records, ElementsAre(element, element));
  }
}

TEST(Scan, EveryCutOfAnArrayIsAnError) {
  const std::string whole = "[{\"a\": [1, \"x]\"]}, {\"b\": 2}]";
  for (size_t length = 1; length < whole.size(); ++length) {
    const std::string cut = whole.substr(0, length);
    EXPECT_THAT(error_of(core::ErrorKind::Data, [&] { scan_text(cut, FileForm::JsonArray); }),
                HasSubstr(":1: the array is not closed"))
        << cut;
  }
}

TEST(Scan, RefusesBrokenArrays) {
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"{\"a\":1}", "does not start with an array"},
      {"[1]\n2", ":2: something follows"},
      {"[1}]", "closes that was never opened"},
      {" \n ", "holds no array"},
  };
  for (const auto& [text, message] : broken) {
    EXPECT_THAT(error_of(core::ErrorKind::Data,
                         [&, &text = text] { scan_text(text, FileForm::JsonArray); }),
                HasSubstr(message));
  }
  for (const char* text : {"[1,,2]", "[,1]", "[1,]"}) {
    EXPECT_EQ(scan_text(text, FileForm::JsonArray).faults.first, Fault::Empty) << text;
  }
  const Scanned found = scan_text("[\"a\",\n\"\xFF\",\"\xE2\x82\",3]", FileForm::JsonArray);
  EXPECT_EQ(found.faults.count, 2);
  EXPECT_EQ(found.faults.first_line, 2);
  EXPECT_EQ(found.faults.first_byte, 2);
  EXPECT_THAT(found.records, ElementsAre("\"a\"", "3"));
}

TEST(Scan, CutsTextAtBlankLines) {
  const std::string text = "\n\none\ntwo\r\n \t\r\n\nthree\n\n\nfour";
  EXPECT_THAT(scan_text(text, FileForm::Paragraphs).records,
              ElementsAre("one\ntwo", "three", "four"));
  EXPECT_THAT(scan_text(text, FileForm::Paragraphs).lines, ElementsAre(3, 7, 10));
  EXPECT_THAT(scan_text(text, FileForm::WholeText).records,
              ElementsAre("one\ntwo\r\n \t\r\n\nthree\n\n\nfour"));
  const Scanned found = scan_text("ok\n\nbad\nb\xFFx\n\nok2", FileForm::Paragraphs);
  EXPECT_THAT(found.records, ElementsAre("ok", "ok2"));
  EXPECT_EQ(found.faults.first_line, 3);
}

TEST(Scan, PiecesOfALongTextJoinToTheWhole) {
  std::string text;
  while (text.size() < 3'500'000) {
    text += "w\xC3\xB6rd " + std::to_string(text.size()) + (text.size() % 7 == 0 ? "\n" : " ");
  }
  for (const std::string& whole : {text, std::string(2'500'000, 'x'), std::string("short")}) {
    const Scanned found = scan_text(whole, FileForm::TextPieces);
    std::string joined;
    for (const std::string& piece : found.records) {
      EXPECT_LE(piece.size(), 1 << 20);
      joined += piece;
    }
    EXPECT_EQ(joined, whole);
    EXPECT_FALSE(found.continues.front());
    EXPECT_EQ(found.faults.count, 0);
  }
  std::string euros;
  for (int i = 0; i < 600'000; ++i) {
    euros += "\xE2\x82\xAC";
  }
  EXPECT_EQ(scan_text(euros, FileForm::TextPieces).faults.count, 0);
}

TEST(Utf8Checker, AgreesWithThePieceBorders) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 plain ascii text 123";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    Utf8Checker checker;
    EXPECT_EQ(checker.feed(std::string_view(text).substr(0, cut)), Utf8Checker::kGood);
    EXPECT_EQ(checker.feed(std::string_view(text).substr(cut)), Utf8Checker::kGood);
    EXPECT_TRUE(checker.complete());
  }
}

TEST(DetectForm, GoesByFirstBytesAndName) {
  const Scratch scratch;
  const auto form = [&](const char* name, const char* bytes, const char* format = "auto") {
    return detect_form(DataFile::open(scratch.write(name, bytes)), format, "blank_lines");
  };
  EXPECT_EQ(form("a.json", " \n[{}]"), FileForm::JsonArray);
  EXPECT_EQ(form("a.json", "{}\n{}"), FileForm::Jsonl);
  EXPECT_EQ(form("a.jsonl", "{}\n"), FileForm::Jsonl);
  EXPECT_EQ(form("a", "\xEF\xBB\xBF{}\n"), FileForm::Jsonl);
  EXPECT_EQ(form("a.txt", "[not json"), FileForm::Paragraphs);
  EXPECT_EQ(form("a.dat", "hello", "text"), FileForm::Paragraphs);
  EXPECT_THAT(error_of(core::ErrorKind::Data, [&] { form("a.dat", "hello"); }),
              HasSubstr("data.format"));
}

}  // namespace
}  // namespace kamerton::data
