// SPDX-License-Identifier: Apache-2.0
#include "scan.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include <fmt/format.h>

#include "kamerton/core/error.h"

#include "array_scanner.h"
#include "compression.h"
#include "csv.h"
#include "utf8.h"

namespace kamerton::data {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;
constexpr std::string_view kScanByteOrderMark = "\xEF\xBB\xBF";

uint32_t saturate(uint64_t line) {
  return static_cast<uint32_t>(std::min<uint64_t>(line, std::numeric_limits<uint32_t>::max()));
}

uint64_t text_start(const DataFile& file) {
  const uint64_t head = std::min<uint64_t>(file.size(), kScanByteOrderMark.size());
  return file.read(0, head) == kScanByteOrderMark ? kScanByteOrderMark.size() : 0;
}

/// Hands the file to visit(offset, chunk) from `begin` on.
template <class Visit>
void for_each_chunk(const DataFile& file, uint64_t begin, const Visit& visit) {
  std::string buffer;
  for (uint64_t offset = begin; offset < file.size(); offset += buffer.size()) {
    buffer.resize(std::min(kChunkBytes, file.size() - offset));
    file.read_into(offset, buffer.data(), buffer.size());
    visit(offset, std::string_view(buffer));
  }
}

struct Line {
  uint64_t offset = 0;
  uint64_t length = 0;  ///< without the line end
  uint64_t number = 1;
  bool blank = true;
  Fault fault = Fault::None;
  uint64_t fault_byte = 0;  ///< within the line, from 1
};

/// Cuts chunks into lines and checks their text.
template <class Sink>
class LineScanner {
 public:
  LineScanner(uint64_t start, uint64_t max_bytes, Sink& sink) : max_bytes_(max_bytes), sink_(sink) {
    line_.offset = start;
  }

  void feed(uint64_t offset, std::string_view chunk) {
    while (!chunk.empty()) {
      const size_t end = chunk.find('\n');
      const std::string_view piece = chunk.substr(0, end);
      add(piece);
      if (end == std::string_view::npos) {
        return;
      }
      finish_line(offset + end + 1);
      offset += end + 1;
      chunk.remove_prefix(end + 1);
    }
  }
  void finish() {
    if (line_.length > 0) {
      finish_line(0);
    }
  }

 private:
  void add(std::string_view piece) {
    if (piece.empty()) {
      return;
    }
    line_.blank = line_.blank && piece.find_first_not_of(" \t\r\v\f") == std::string_view::npos;
    if (line_.fault == Fault::None) {
      const size_t bad = checker_.feed(piece);
      if (bad != Utf8Checker::kGood) {
        line_.fault = Fault::BadText;
        line_.fault_byte = line_.length + bad + 1;
      }
    }
    line_.length += piece.size();
    last_ = piece.back();
  }

  void finish_line(uint64_t next_offset) {
    const uint64_t number = line_.number;
    if (line_.length > 0 && last_ == '\r') {
      --line_.length;
    }
    if (line_.fault == Fault::None && !checker_.complete()) {
      line_.fault = Fault::BadText;
      line_.fault_byte = line_.length;
    }
    if (line_.fault == Fault::None && line_.length > max_bytes_) {
      line_.fault = Fault::TooLong;
      line_.fault_byte = max_bytes_ + 1;
    }
    sink_.line(line_);
    checker_.reset();
    line_ = Line{};
    line_.offset = next_offset;
    line_.number = number + 1;
    last_ = 0;
  }

  Line line_;
  Utf8Checker checker_;
  uint64_t max_bytes_;
  char last_ = 0;
  Sink& sink_;
};

/// Counts faults and passes the rest on.
class Collector {
 public:
  explicit Collector(const std::function<void(const Entry&)>& emit) : emit_(emit) {}
  void good(uint64_t offset, uint64_t length, uint64_t line, bool continues = false) {
    emit_({.offset = offset,
           .length = static_cast<uint32_t>(length) | (continues ? kContinues : 0),
           .line = saturate(line)});
  }
  /// Whether it is the first.
  bool bad(Fault fault, uint64_t line, uint64_t byte) {
    if (faults.count++ > 0) {
      return false;
    }
    faults.first = fault;
    faults.first_line = line;
    faults.first_byte = byte;
    return true;
  }
  Faults faults;

 private:
  const std::function<void(const Entry&)>& emit_;
};

struct JsonlSink {
  Collector& out;
  void line(const Line& line) {
    if (line.fault != Fault::None) {
      out.bad(line.fault, line.number, line.fault_byte);
    } else if (!line.blank) {
      out.good(line.offset, line.length, line.number);
    }
  }
};

/// Joins lines to paragraphs; the whole file is one when `split` is off.
struct ParagraphSink {
  Collector& out;
  uint64_t max_bytes;
  bool split;
  Line paragraph = {};
  bool open = false;

  void line(const Line& line) {
    if (line.blank && line.fault == Fault::None) {
      if (split) {
        close();
      }
      return;
    }
    if (!open) {
      paragraph = line;
      open = true;
    } else {
      if (paragraph.fault == Fault::None && line.fault != Fault::None) {
        paragraph.fault = line.fault;
        paragraph.fault_byte = line.offset - paragraph.offset + line.fault_byte;
      }
      paragraph.length = line.offset + line.length - paragraph.offset;
    }
  }
  void close() {
    if (!open) {
      return;
    }
    open = false;
    if (paragraph.fault == Fault::None && paragraph.length > max_bytes) {
      paragraph.fault = Fault::TooLong;
      paragraph.fault_byte = max_bytes + 1;
    }
    if (paragraph.fault != Fault::None) {
      out.bad(paragraph.fault, paragraph.number, paragraph.fault_byte);
    } else {
      out.good(paragraph.offset, paragraph.length, paragraph.number);
    }
  }
};

template <class Sink>
void scan_lines(const DataFile& file, uint64_t max_bytes, Sink& sink) {
  const uint64_t start = text_start(file);
  LineScanner<Sink> scanner(start, max_bytes, sink);
  for_each_chunk(
      file, start, [&](uint64_t offset, std::string_view chunk) { scanner.feed(offset, chunk); });
  scanner.finish();
}

/// Where to cut a piece so that words stay whole: after the last line end, else the last blank,
/// else a character.
size_t cut_point(std::string_view chunk) {
  for (const char stop : {'\n', ' '}) {
    const size_t at = chunk.find_last_of(stop);
    if (at != std::string_view::npos && at > 0) {
      return at + 1;
    }
  }
  size_t at = chunk.size();
  while (at > 1 && (static_cast<uint8_t>(chunk[at - 1]) & 0xC0) == 0x80) {
    --at;
  }
  return at > 1 ? at - 1 : chunk.size();
}

void scan_pieces(const DataFile& file, Collector& out) {
  const uint64_t start = text_start(file);
  uint64_t line = 1;
  Utf8Checker checker;
  std::string buffer;
  for (uint64_t offset = start; offset < file.size();) {
    buffer.resize(std::min(kChunkBytes, file.size() - offset));
    file.read_into(offset, buffer.data(), buffer.size());
    const bool last = offset + buffer.size() == file.size();
    const size_t length = last ? buffer.size() : cut_point(buffer);
    const std::string_view piece = std::string_view(buffer).substr(0, length);
    const size_t bad = checker.feed(piece);
    if (bad != Utf8Checker::kGood || (last && !checker.complete())) {
      const size_t byte = std::min(bad, length - 1);
      const auto head = piece.substr(0, byte);
      const auto lines = static_cast<uint64_t>(std::count(head.begin(), head.end(), '\n'));
      out.bad(Fault::BadText, line + lines, byte - (head.find_last_of('\n') + 1) + 1);
      checker.reset();
    } else {
      out.good(offset, length, line, offset != start);
    }
    line += static_cast<uint64_t>(std::count(piece.begin(), piece.end(), '\n'));
    offset += length;
  }
}

void scan_array(const DataFile& file, uint64_t max_bytes, Collector& out) {
  ArrayScanner scanner(file.path());
  Utf8Checker checker;
  uint64_t fault_byte = 0;  // of the element under way, from 1; 0: none
  const auto text = [&](uint64_t done, std::string_view piece) {
    const size_t bad = fault_byte > 0 ? Utf8Checker::kGood : checker.feed(piece);
    if (bad != Utf8Checker::kGood) {
      fault_byte = done + bad + 1;
    }
  };
  const auto element = [&](uint64_t offset, uint64_t length, uint64_t line) {
    if (fault_byte == 0 && !checker.complete()) {
      fault_byte = length;
    }
    if (fault_byte > 0) {
      out.bad(Fault::BadText, line, fault_byte);
    } else if (length == 0) {
      out.bad(Fault::Empty, line, 1);
    } else if (length > max_bytes) {
      out.bad(Fault::TooLong, line, max_bytes + 1);
    } else {
      out.good(offset, length, line);
    }
    checker.reset();
    fault_byte = 0;
  };
  const uint64_t start = text_start(file);
  for_each_chunk(file, start, [&](uint64_t offset, std::string_view chunk) {
    scanner.feed(offset, chunk, text, element);
  });
  scanner.finish();
}

void scan_csv(const DataFile& file, bool tabs, uint64_t max_bytes, Collector& out) {
  const CsvHeader header = read_csv_header(file, tabs);
  const uint64_t columns = header.columns.size();
  bool in_header = true;
  const auto row = [&](const CsvRow& found) {
    if (found.blank || in_header) {
      in_header = in_header && found.blank;
    } else if (found.bad_text > 0) {
      out.bad(Fault::BadText, found.line, found.bad_text);
    } else if (found.length > max_bytes) {
      out.bad(Fault::TooLong, found.line, max_bytes + 1);
    } else if (found.bad_quote) {
      out.bad(Fault::Quotes, found.line, found.quote_byte);
    } else if (found.fields == columns) {
      out.good(found.offset, found.length, found.line);
    } else if (out.bad(Fault::Columns, found.line, found.length)) {
      out.faults.columns = saturate(found.fields);
      out.faults.header_columns = saturate(columns);
    }
  };
  const uint64_t start = text_start(file);
  CsvScanner scanner(header.delimiter, start);
  for_each_chunk(file, start, [&](uint64_t offset, std::string_view chunk) {
    scanner.feed(offset, chunk, row);
  });
  scanner.finish(row);
}

bool ends_with_any(const std::string& path, std::initializer_list<std::string_view> suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(), [&](std::string_view suffix) {
    return path.ends_with(suffix);
  });
}

}  // namespace

std::string describe_fault(const Faults& faults) {
  switch (faults.first) {
    case Fault::BadText:
      return "a byte that is not UTF-8 text, or zero";
    case Fault::TooLong:
      return "a record longer than data.max_line_bytes";
    case Fault::Empty:
      return "an empty element in the array";
    case Fault::Quotes:
      return "a quoted field that is never closed, or goes on behind its closing quote";
    case Fault::Columns:
      return fmt::format(
          "a row of {} columns under a header of {}", faults.columns, faults.header_columns);
    case Fault::None:
      break;
  }
  return "nothing";
}

FileForm detect_form(const DataFile& file,
                     const std::string& format,
                     const std::string& text_split) {
  const std::string name = without_compression_suffix(file.path());
  const bool is_auto = format == "auto";
  if (format == "jsonl" || format == "parquet" || format == "arrow") {
    return FileForm::Jsonl;  // the latter two have been made lines
  }
  if (format == "json") {
    return FileForm::JsonArray;
  }
  if (format == "csv" || (is_auto && name.ends_with(".csv"))) {
    return FileForm::Csv;
  }
  if (format == "tsv" || (is_auto && name.ends_with(".tsv"))) {
    return FileForm::Tsv;
  }
  if (format == "text" || ends_with_any(name, {".txt", ".md", ".text"})) {
    return text_split == "file" ? FileForm::WholeText : FileForm::Paragraphs;
  }
  const uint64_t start = text_start(file);
  const std::string head = file.read(start, std::min<uint64_t>(file.size() - start, 4096));
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && head[first] == '[') {
    return FileForm::JsonArray;
  }
  if (ends_with_any(name, {".jsonl", ".ndjson", ".json"}) ||
      (first != std::string::npos && head[first] == '{')) {
    return FileForm::Jsonl;
  }
  throw core::Error(
      core::ErrorKind::Data,
      {.where = "data.scan",
       .what = file.path() + ": neither its name nor its first bytes tell the form",
       .allowed = "JSONL, a JSON array, CSV, TSV, plain text (.txt, .md), Parquet, Arrow",
       .hint = "data.format: jsonl, json, csv, tsv or text"});
}

Faults scan(const DataFile& file,
            FileForm form,
            uint64_t max_record_bytes,
            const std::function<void(const Entry&)>& emit) {
  Collector out(emit);
  switch (form) {
    case FileForm::Jsonl: {
      JsonlSink sink{out};
      scan_lines(file, max_record_bytes, sink);
      break;
    }
    case FileForm::Paragraphs:
    case FileForm::WholeText: {
      ParagraphSink sink{out, max_record_bytes, form == FileForm::Paragraphs};
      // A paragraph is measured as a whole, its lines are not.
      scan_lines(file, std::numeric_limits<uint64_t>::max(), sink);
      sink.close();
      break;
    }
    case FileForm::TextPieces:
      scan_pieces(file, out);
      break;
    case FileForm::JsonArray:
      scan_array(file, max_record_bytes, out);
      break;
    case FileForm::Csv:
    case FileForm::Tsv:
      scan_csv(file, form == FileForm::Tsv, max_record_bytes, out);
      break;
  }
  return out.faults;
}

}  // namespace kamerton::data
