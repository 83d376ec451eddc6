// SPDX-License-Identifier: Apache-2.0
#include "csv.h"

#include <algorithm>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kCsvWhere[] = "data.csv";
constexpr uint64_t kHeaderBytes = 1 << 20;
constexpr std::string_view kCsvByteOrderMark = "\xEF\xBB\xBF";

[[noreturn]] void bad_header(const DataFile& file, const std::string& what) {
  throw Error(ErrorKind::Data,
              {.where = kCsvWhere,
               .what = file.path() + ":1: " + what,
               .allowed = "a first row with the names of the columns",
               .hint = "data.format when the file is something else"});
}

/// The first row that is not blank.
std::string first_row(const DataFile& file, char delimiter) {
  const std::string head = file.read(0, std::min(file.size(), kHeaderBytes));
  const size_t start = head.starts_with(kCsvByteOrderMark) ? kCsvByteOrderMark.size() : 0;
  std::optional<CsvRow> found;
  const auto sink = [&](const CsvRow& row) {
    if (!found && !row.blank) {
      found = row;
    }
  };
  CsvScanner scanner(delimiter, start);
  scanner.feed(start, std::string_view(head).substr(start), sink);
  if (!found && head.size() < file.size()) {
    bad_header(file, "the first row does not end within 1 MiB");
  }
  scanner.finish(sink);
  if (!found) {
    bad_header(file, "the file holds no rows");
  }
  if (found->bad_quote || found->bad_text > 0) {
    bad_header(file,
               found->bad_quote ? "the quotes of the first row do not match"
                                : "the first row is not UTF-8 text");
  }
  return head.substr(found->offset, found->length);
}

}  // namespace

void CsvScanner::complain() {
  if (!row_.bad_quote) {
    row_.bad_quote = true;
    row_.quote_byte = row_.length + 1;
  }
}

void CsvScanner::step(char byte) {
  switch (state_) {
    case State::FieldStart:
    case State::Plain:
      if (byte == delimiter_) {
        ++row_.fields;
        state_ = State::FieldStart;
      } else if (byte == '"' && state_ == State::FieldStart) {
        state_ = State::Quoted;
      } else {
        state_ = State::Plain;
      }
      break;
    case State::Quoted:
      if (byte == '"') {
        state_ = State::QuoteInQuoted;
      }
      break;
    case State::QuoteInQuoted:
      if (byte == '"') {
        state_ = State::Quoted;
      } else if (byte == delimiter_) {
        ++row_.fields;
        state_ = State::FieldStart;
      } else if (byte != '\r') {  // before the line end
        complain();
        state_ = State::Plain;
      }
      break;
  }
}

void CsvScanner::end_row(uint64_t next, const Sink& sink) {
  if (last_ == '\r') {
    --row_.length;
  }
  if (row_.bad_text == 0 && !checker_.complete()) {
    row_.bad_text = row_.length;
  }
  row_.blank = row_.length == 0;
  sink(row_);
  row_ = CsvRow{};
  row_.offset = next;
  row_.line = line_;
  state_ = State::FieldStart;
  checker_.reset();
  last_ = 0;
}

void CsvScanner::feed(uint64_t offset, std::string_view chunk, const Sink& sink) {
  size_t begin = 0;  // of what the text checker has not seen
  const auto check = [&](size_t end) {
    if (row_.bad_text == 0 && end > begin) {
      const uint64_t before = row_.length - (end - begin);
      const size_t bad = checker_.feed(chunk.substr(begin, end - begin));
      row_.bad_text = bad == Utf8Checker::kGood ? 0 : before + bad + 1;
    }
    begin = end;
  };
  for (size_t i = 0; i < chunk.size(); ++i) {
    const char byte = chunk[i];
    if (byte == '\n') {
      ++line_;
      if (state_ != State::Quoted) {
        check(i);
        begin = i + 1;
        end_row(offset + i + 1, sink);
        continue;
      }
    }
    step(byte);
    ++row_.length;
    last_ = byte;
  }
  check(chunk.size());
}

void CsvScanner::finish(const Sink& sink) {
  if (row_.length == 0) {
    return;
  }
  if (state_ == State::Quoted) {
    complain();
  }
  end_row(0, sink);
}

std::vector<std::string> split_csv(std::string_view row, char delimiter) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  bool at_start = true;
  for (size_t i = 0; i < row.size(); ++i) {
    const char byte = row[i];
    if (quoted) {
      if (byte != '"') {
        fields.back() += byte;
      } else if (i + 1 < row.size() && row[i + 1] == '"') {
        fields.back() += '"';
        ++i;
      } else {
        quoted = false;
      }
    } else if (byte == delimiter) {
      fields.emplace_back();
      at_start = true;
      continue;
    } else if (byte == '"' && at_start) {
      quoted = true;
    } else {
      fields.back() += byte;
    }
    at_start = false;
  }
  return fields;
}

CsvHeader read_csv_header(const DataFile& file, bool tabs) {
  CsvHeader header;
  header.delimiter = tabs ? '\t' : ',';
  std::string row = first_row(file, header.delimiter);
  if (!tabs && row.find(',') == std::string::npos && row.find(';') != std::string::npos) {
    header.delimiter = ';';  // as spreadsheets write it where the comma is the decimal sign
    row = first_row(file, header.delimiter);
  }
  header.columns = split_csv(row, header.delimiter);
  std::set<std::string> seen;
  for (size_t i = 0; i < header.columns.size(); ++i) {
    std::string& name = header.columns[i];
    if (name.empty()) {
      name = fmt::format("column {}", i + 1);
    }
    if (!seen.insert(name).second) {
      bad_header(file, fmt::format("two columns are called '{}'", name.substr(0, 40)));
    }
  }
  return header;
}

}  // namespace kamerton::data
