// SPDX-License-Identifier: Apache-2.0
#include "sources.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kWhere[] = "data.sources";
constexpr int64_t kDetectRecords = 16;

/// Line ends of other systems, as one sign.
std::string unix_line_ends(std::string text) {
  if (text.find('\r') == std::string::npos) {
    return text;
  }
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

Sources::Sources(const std::vector<std::string>& paths, const DataConfig& config, bool has_template)
    : config_(config), has_template_(has_template) {
  if (paths.empty()) {
    throw Error(ErrorKind::Config,
                {.where = kWhere,
                 .what = "there are no data files",
                 .hint = "data.train: [file.jsonl], and data.eval for evaluation"});
  }
  for (const std::string& path : paths) {
    open(path);
  }
  if (left_out_ > config_.max_bad_records) {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = fmt::format("{}: too many bad records", paths.front()),
                 .got = fmt::format("{}", left_out_),
                 .allowed = fmt::format("data.max_bad_records = {}", config_.max_bad_records)});
  }
  find_layout();
  if (bytes_ <= static_cast<uint64_t>(config_.check_bytes)) {
    check_all();
  }
}

void Sources::open(const std::string& path) {
  DataFile file = DataFile::open(path);
  FileForm form = detect_form(file, config_.format, config_.text_split);
  if (form == FileForm::WholeText && config_.text_windows) {
    form = FileForm::TextPieces;
  }
  const IndexOptions options{.max_record_bytes = static_cast<uint64_t>(config_.max_line_bytes),
                             .folder = config_.index_dir};
  RecordIndex index = RecordIndex::build(file, form, options);
  sources_.push_back({std::move(file), form, std::move(index), size_});
  const Source& source = sources_.back();
  check_faults(source);
  if (source.index.size() == 0) {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = path + ": the data file holds no records",
                 .allowed = "one record or more"});
  }
  size_ += static_cast<int64_t>(source.index.size());
  bytes_ += source.file.size();
}

void Sources::check_faults(const Source& source) {
  const Faults& faults = source.index.faults();
  if (faults.count == 0) {
    return;
  }
  if (!skips_bad()) {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = fmt::format("{}:{}:{}: {}",
                                     source.file.path(),
                                     faults.first_line,
                                     faults.first_byte,
                                     describe_fault(faults.first)),
                 .got = fmt::format("{} bad records in this file", faults.count),
                 .hint = "mend the file, or data.on_bad_record: skip"});
  }
  left_out_ += static_cast<int64_t>(faults.count);
}

bool Sources::is_text(const Source& source) const {
  return source.form != FileForm::Jsonl && source.form != FileForm::JsonArray;
}

void Sources::find_layout() {
  if (config_.layout != "auto") {
    layout_ = layout_from(config_.layout);
    return;
  }
  for (const Source& source : sources_) {
    if (is_text(source)) {
      note_layout(source.first, source);
      continue;
    }
    const auto count = std::min(kDetectRecords, static_cast<int64_t>(source.index.size()));
    for (int64_t i = 0; i < count; ++i) {
      note_layout(source.first + i, source);
    }
  }
  if (!detected_) {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = sources_.front().file.path() +
                         ": none of the first records can be read, so their layout is unknown"});
  }
}

void Sources::note_layout(int64_t index, const Source& source) {
  std::optional<Layout> found = Layout::Text;
  std::string columns;
  if (!is_text(source)) {
    try {
      const core::Json json =
          parse_record(raw(index), origin(index), static_cast<size_t>(config_.max_line_bytes));
      found = detect_layout(json);
      columns = describe_columns(json);
    } catch (const Error&) {
      tolerate_current_error(index);
      return;
    }
  }
  if (!found) {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = origin(index) + ": no known layout",
                 .got = columns,
                 .allowed = "messages; prompt and completion; instruction and output; "
                            "conversations; text",
                 .hint = "rename the columns, or say data.layout"});
  }
  if (detected_ && *found != layout_) {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = origin(index) + ": another layout than in the records before",
                 .got = std::string(name_of(*found)),
                 .allowed = std::string(name_of(layout_)),
                 .hint = "files of one layout, or data.layout"});
  }
  layout_ = *found;
  detected_ = true;
}

void Sources::check_all() const {
  int64_t bad = 0;
  std::string first;
  for (int64_t i = 0; i < size_; ++i) {
    try {
      record(i);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Data || skips_bad()) {
        tolerate_current_error(i);
        continue;
      }
      if (bad++ == 0) {
        first = error.what();
      }
    }
  }
  if (bad > 0) {
    const size_t bracket = first.find("] ");
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = bracket == std::string::npos ? first : first.substr(bracket + 2),
                 .got = fmt::format("{} bad records of {}", bad, size_),
                 .hint = "mend the file, or data.on_bad_record: skip"});
  }
}

const Sources::Source& Sources::source_of(int64_t index) const {
  if (index < 0 || index >= size_) {
    throw Error(ErrorKind::Internal,
                {.where = kWhere,
                 .what = "there is no such record",
                 .got = std::to_string(index),
                 .allowed = fmt::format("0 to {}", size_ - 1)});
  }
  const auto after = std::upper_bound(
      sources_.begin(), sources_.end(), index, [](int64_t i, const Source& source) {
        return i < source.first;
      });
  return *std::prev(after);
}

const Entry& Sources::entry_of(const Source& source, int64_t index) const {
  return source.index.entries()[static_cast<size_t>(index - source.first)];
}

std::string Sources::origin(int64_t index) const {
  const Source& source = source_of(index);
  return fmt::format("{}:{}", source.file.path(), entry_of(source, index).line);
}

std::string Sources::raw(int64_t index) const {
  const Source& source = source_of(index);
  const Entry& entry = entry_of(source, index);
  return source.file.read(entry.offset, entry.length & ~kContinues);
}

bool Sources::continues(int64_t index) const {
  return (entry_of(source_of(index), index).length & kContinues) != 0;
}

Record Sources::record(int64_t index) const {
  const Source& source = source_of(index);
  const std::string place = origin(index);
  if (is_text(source)) {
    Record record;
    record.completion = unix_line_ends(raw(index));
    record.origin = place;
    return record;
  }
  const core::Json json =
      parse_record(raw(index), place, static_cast<size_t>(config_.max_line_bytes));
  return to_record(json, layout_, has_template_, place);
}

void Sources::tolerate_current_error(int64_t index) const {
  try {
    throw;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data || !skips_bad()) {
      throw;
    }
  }
  const std::scoped_lock lock(bad_->mutex);
  bad_->seen.insert(index);
  const int64_t count = left_out_ + static_cast<int64_t>(bad_->seen.size());
  if (count > config_.max_bad_records) {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
                 .what = origin(index) + ": one bad record too many",
                 .got = fmt::format("{}", count),
                 .allowed = fmt::format("data.max_bad_records = {}", config_.max_bad_records)});
  }
}

int64_t Sources::bad_records() const {
  const std::scoped_lock lock(bad_->mutex);
  return left_out_ + static_cast<int64_t>(bad_->seen.size());
}

std::vector<std::string> Sources::files() const {
  std::vector<std::string> paths;
  for (const Source& source : sources_) {
    paths.push_back(source.file.path());
  }
  return paths;
}

std::string Sources::fingerprint() const {
  std::string text;
  for (const Source& source : sources_) {
    text += source.file.fingerprint() + "\n";
  }
  return text;
}

}  // namespace kamerton::data
