// SPDX-License-Identifier: Apache-2.0
// Damaged data files are refused with one clear error or read within their bounds; nothing else may
// happen (run under ASan too). KAMERTON_FUZZ_CASES says how many cases each; continuous integration
// runs the default.
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "column_map.h"
#include "columnar.h"
#include "compression.h"
#include "csv.h"
#include "layout.h"
#include "scan.h"
#include "support/byte_mutator.h"
#include "unit/data/columnar_samples.h"
#include "unit/data/compressed.h"
#include "unit/data/support.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr uint64_t kSeed = 20264;
constexpr uint64_t kMaxRecord = 4096;
constexpr uint64_t kMaxText = 1 << 20;

uint64_t cases(uint64_t usual) {
  const char* given = std::getenv("KAMERTON_FUZZ_CASES");
  return given == nullptr ? usual : std::strtoull(given, nullptr, 10);
}

const std::vector<std::string> kJsonWords = {"{",
                                             "}",
                                             "[",
                                             "]",
                                             ",",
                                             ":",
                                             "\"",
                                             "\\",
                                             "\n",
                                             "\r\n",
                                             "\n\n",
                                             "null",
                                             "true",
                                             "-1e3",
                                             "\\u0000",
                                             "\\ud800",
                                             "\xff",
                                             "\xef\xbb\xbf",
                                             "\xc3",
                                             "[[[[[[[[",
                                             "\"messages\":",
                                             "\"role\":",
                                             "\"content\":",
                                             "\"chosen\":",
                                             "\"rejected\":",
                                             "\"tools\":",
                                             "\"label\":",
                                             "{\"a\":{\"a\":"};

const std::vector<std::string> kJsonSeeds = {
    "{\"text\":\"a\"}\n{\"text\":\"b\\n\\u00e9\"}\n",
    "{\"prompt\":\"a\",\"completion\":\"b\",\"label\":true}\n",
    "{\"prompt\":[{\"role\":\"user\",\"content\":\"q\"}],\"completion\":[{\"role\":\"assistant\","
    "\"content\":"
    "\"a\"}]}\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":"
    "\"a\"}],"
    "\"tools\":\"[{}]\"}\n",
    "{\"instruction\":\"i\",\"input\":\"\",\"output\":\"o\",\"history\":[[\"q\",\"a\"]]}\n",
    "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"},{\"from\":\"function_call\","
    "\"value\":\"{}\"}]}\n",
    "{\"chosen\":\"same a\",\"rejected\":\"same b\"}\n",
    "{\"conversations\":[{\"from\":\"human\",\"value\":\"q\"}],\"chosen\":{\"from\":\"gpt\","
    "\"value\":\"a\"},"
    "\"rejected\":{\"from\":\"gpt\",\"value\":\"b\"}}\n",
    "{\"chosen\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"a\"}]"
    ","
    "\"rejected\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\",\"content\":\"b\"}"
    "]}\n"};

/// What became of the records of one file.
struct Outcome {
  uint64_t read = 0;
  uint64_t refused = 0;
};

void expect_clear(const Error& error, uint64_t number) {
  ASSERT_EQ(error.kind(), ErrorKind::Data) << number << ": " << error.what();
  ASSERT_NE(std::string(error.what()).find("fuzz"), std::string::npos)
      << number << ": the file is not named: " << error.what();
}

/// Scans a file of any form, reads every record that the scan gives, and proves that it lies within
/// the file and within the limit.
Outcome read_all(const DataFile& file, FileForm form, uint64_t number) {
  Outcome outcome;
  const CsvHeader header = form == FileForm::Csv || form == FileForm::Tsv
                               ? read_csv_header(file, form == FileForm::Tsv)
                               : CsvHeader{};
  const ColumnNames names{ColumnMap{}};
  uint64_t last_end = 0;
  scan(file, form, kMaxRecord, [&](const Entry& entry) {
    const uint64_t length = entry.length & ~kContinues;
    ASSERT_GE(entry.offset, last_end) << number;
    ASSERT_LE(entry.offset + length, file.size()) << number;
    ASSERT_LE(length, kMaxRecord) << number;
    last_end = entry.offset + length;
    if (is_plain_text(form)) {
      ++outcome.read;
      return;
    }
    const std::string raw = file.read(entry.offset, length);
    const std::string origin = fmt::format("fuzz:{}", entry.line);
    try {
      const core::Json json = form == FileForm::Jsonl || form == FileForm::JsonArray
                                  ? parse_record(raw, origin, kMaxRecord)
                                  : record_of_row(raw, header, names, origin);
      const auto layout = detect_layout(json);
      to_record(json, layout.value_or(Layout::Text), true, origin);
      ++outcome.read;
    } catch (const Error& error) {
      ++outcome.refused;
      expect_clear(error, number);
    }
  });
  return outcome;
}

/// Runs damaged versions of the seeds; what comes out is counted.
void fuzz(const std::vector<std::string>& seeds,
          const std::vector<std::string>& words,
          uint64_t count,
          const std::function<Outcome(const DataFile&, uint64_t)>& read) {
  const Scratch scratch;
  const test::ByteMutator mutate(kSeed, words);
  Outcome all;
  uint64_t refused_whole = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string bytes = mutate(seeds[i % seeds.size()], i);
    if (bytes.empty()) {
      continue;
    }
    try {
      const Outcome one = read(DataFile::open(scratch.write("fuzz", bytes)), i);
      all.read += one.read;
      all.refused += one.refused;
    } catch (const Error& error) {
      ++refused_whole;
      expect_clear(error, i);
    }
    if (::testing::Test::HasFatalFailure()) {
      return;
    }
  }
  EXPECT_GT(all.read, count / 100)
      << "the damage is too great to test anything but the first check";
  EXPECT_GT(all.refused + refused_whole, count / 100) << "the damage is too small";
}

TEST(DataFuzz, LinesOfJson) {
  fuzz(kJsonSeeds, kJsonWords, cases(8000), [](const DataFile& file, uint64_t i) {
    return read_all(file, FileForm::Jsonl, i);
  });
}

TEST(DataFuzz, ArraysOfJson) {
  std::vector<std::string> seeds;
  for (const std::string& lines : kJsonSeeds) {
    seeds.push_back("[" + lines.substr(0, lines.find('\n')) + ",\n" +
                    lines.substr(0, lines.find('\n')) + "]\n");
  }
  fuzz(seeds, kJsonWords, cases(8000), [](const DataFile& file, uint64_t i) {
    return read_all(file, FileForm::JsonArray, i);
  });
}

TEST(DataFuzz, CommaAndTabSeparated) {
  const std::vector<std::string> seeds = {
      "text,n\na,1\n\"b\nc\",2\n\n\"\"\"q\"\"\",3\n",
      "\xef\xbb\xbfprompt,completion,label\r\na,b,true\r\n\"c,\",d,false\r\n",
      "prompt\tcompletion\na\tb\nc\td\n",
      "prompt;completion\na;b\nc;d\n",
      "messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"q\"\"}]\"\n"};
  const std::vector<std::string> words = {",",
                                          "\"",
                                          "\"\"",
                                          "\n",
                                          "\r\n",
                                          "\r",
                                          "\t",
                                          ";",
                                          "\",\"",
                                          "\"\n",
                                          "\n\"",
                                          "\xff",
                                          "\xc3",
                                          "\xef\xbb\xbf",
                                          "[{",
                                          "true\n"};
  fuzz(seeds, words, cases(8000), [](const DataFile& file, uint64_t i) {
    return read_all(file, i % 5 == 2 ? FileForm::Tsv : FileForm::Csv, i);
  });
}

TEST(DataFuzz, PlainText) {
  fuzz({"a\n\nb\nc\n\n\nd", "\xef\xbb\xbfone\r\n\r\ntwo \xc3\xa9\r\n"},
       {"\n\n", "\r\n", " ", "\xff", "\xed\xa0\x80", std::string(1, '\0'), "\xc3\xa9"},
       cases(4000),
       [](const DataFile& file, uint64_t i) {
         constexpr FileForm kForms[] = {
             FileForm::Paragraphs, FileForm::WholeText, FileForm::TextPieces};
         Outcome outcome = read_all(file, kForms[i % 3], i);
         const Faults faults = scan(file, kForms[i % 3], kMaxRecord, [](const Entry&) {});
         outcome.refused += faults.count;
         return outcome;
       });
}

/// What the stream gives is read as lines.
Outcome read_packed(const Scratch& scratch, const DataFile& file, uint64_t i) {
  const Compression compression = detect_compression(file);
  std::string text;
  if (compression == Compression::None) {
    return {.read = 0, .refused = 1};
  }
  decompress(file, compression, kMaxText, [&](std::string_view piece) { text += piece; });
  EXPECT_LE(text.size(), kMaxText);
  if (text.empty()) {
    return {};
  }
  Outcome outcome = read_all(DataFile::open(scratch.write("fuzz-text", text)), FileForm::Jsonl, i);
  ++outcome.read;
  return outcome;
}

void fuzz_packed(std::string (*pack)(const std::string&), const std::vector<std::string>& words) {
  const Scratch scratch;
  std::string lines;
  for (const std::string& seed : kJsonSeeds) {
    lines += seed;
  }
  const std::vector<std::string> seeds = {
      pack(lines), pack("x") + pack(lines), pack(std::string(100'000, ' ') + lines)};
  fuzz(seeds, words, cases(4000), [&](const DataFile& file, uint64_t i) {
    return read_packed(scratch, file, i);
  });
}

TEST(DataFuzz, Gzip) {
  fuzz_packed(gzip, {"\x1f\x8b\x08", "\x1f\x8b\x08\x1c", std::string(8, '\0'), "\xff\xff\xff\xff"});
}

TEST(DataFuzz, Zstd) {
  fuzz_packed(zstd_unchecked,
              {"\x28\xb5\x2f\xfd",
               "\x50\x2a\x4d\x18",
               std::string(4, '\0'),
               "\xff\xff\xff\xff",
               "\x28\xb5\x2f\xfd\x04\xb8"});
}

TEST(DataFuzz, ParquetAndArrow) {
  const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  if (!std::filesystem::exists(program.parent_path() / "libkamerton_arrow.so") &&
      !std::filesystem::exists(program / "libkamerton_arrow.so")) {
    GTEST_SKIP() << "libkamerton_arrow.so is not built (launch/setup --arrow)";
  }
  const Scratch scratch;
  const std::vector<std::string> seeds = {samples::from_base64(samples::kParquet),
                                          samples::from_base64(samples::kParquetZstd),
                                          samples::from_base64(samples::kArrowFile),
                                          samples::from_base64(samples::kArrowStream)};
  const std::vector<ColumnarForm> forms = {ColumnarForm::Parquet,
                                           ColumnarForm::Parquet,
                                           ColumnarForm::ArrowFile,
                                           ColumnarForm::ArrowStream};
  fuzz(seeds,
       {"PAR1", "ARROW1", "messages", std::string(8, '\0'), "\xff\xff\xff\xff", "\x15\x00"},
       cases(2000),
       [&](const DataFile& file, uint64_t i) {
         std::string text;
         convert_columnar(file,
                          forms[i % forms.size()],
                          {"messages", "text"},
                          kMaxText,
                          [&](std::string_view row) { text += row; });
         if (text.empty()) {
           return Outcome{};
         }
         return read_all(DataFile::open(scratch.write("fuzz-rows", text)), FileForm::Jsonl, i);
       });
}

}  // namespace
}  // namespace kamerton::data
