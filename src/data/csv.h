// SPDX-License-Identifier: Apache-2.0
// Rows of CSV and TSV files, RFC 4180: found in one pass, taken apart when needed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data_file.h"
#include "utf8.h"

namespace kamerton::data {

/// Where a row lies and what is wrong with it. Quoted fields may hold delimiters, doubled quotes
/// and line ends; a quote within an unquoted field is a sign like any other.
struct CsvRow {
  uint64_t offset = 0;
  uint64_t length = 0;  ///< without the line end
  uint64_t line = 1;    ///< of its first byte
  uint64_t fields = 1;
  bool blank = true;        ///< nothing but the line end
  bool bad_quote = false;   ///< text behind a closing quote, or a quote that is never closed
  uint64_t bad_text = 0;    ///< the first byte that is not UTF-8 text, from 1
  uint64_t quote_byte = 0;  ///< where the quoting went wrong, from 1
};

/// Cuts chunks into rows. Constant memory.
class CsvScanner {
 public:
  using Sink = std::function<void(const CsvRow&)>;
  CsvScanner(char delimiter, uint64_t start) : delimiter_(delimiter) { row_.offset = start; }
  void feed(uint64_t offset, std::string_view chunk, const Sink& sink);
  void finish(const Sink& sink);

 private:
  enum class State { FieldStart, Plain, Quoted, QuoteInQuoted };
  void step(char byte);
  void complain();
  void end_row(uint64_t next, const Sink& sink);

  char delimiter_;
  State state_ = State::FieldStart;
  CsvRow row_;
  uint64_t line_ = 1;
  char last_ = 0;
  Utf8Checker checker_;
};

/// The fields of one row, quotes taken off.
std::vector<std::string> split_csv(std::string_view row, char delimiter);

/// The first row of a file: its columns' names.
struct CsvHeader {
  std::vector<std::string> columns;
  char delimiter = ',';
};

/// `delimiter`: a tab for TSV; for CSV a comma, or a semicolon where the first row has those and no
/// comma. A column without a name is called "column N". ErrorKind::Data when the row is damaged,
/// names a column twice or is longer than 1 MiB.
CsvHeader read_csv_header(const DataFile& file, bool tabs);

}  // namespace kamerton::data
