// SPDX-License-Identifier: Apache-2.0
#include "sources.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"

#include "file_list.h"
#include "replay.h"
#include "staging.h"
#include "stored_tokens.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kSourcesWhere[] = "data.sources";

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

[[noreturn]] void refuse_mixed(const std::string& path) {
  throw Error(ErrorKind::Data,
              {.where = kSourcesWhere,
               .what = path + ": token stores of one layout and raw files cannot be one source",
               .hint = "each as a source of its own in data.sources"});
}

bool is_csv(FileForm form) {
  return form == FileForm::Csv || form == FileForm::Tsv;
}

}  // namespace

Sources::Sources(const std::vector<SourceConfig>& sources,
                 const DataConfig& config,
                 Side side,
                 const text::TokenizerBundle* bundle)
    : config_(config), bundle_(bundle) {
  for (const SourceConfig& source : sources) {
    if (source.files.empty()) {
      throw Error(ErrorKind::Config,
                  {.where = kSourcesWhere,
                   .what = "there are no data files",
                   .hint = "data.train: [file.jsonl], and data.eval for evaluation"});
    }
    open_part(source, side);
  }
  if (left_out_ > config_.max_bad_records) {
    throw Error(ErrorKind::Data,
                {.where = kSourcesWhere,
                 .what = fmt::format("{}: too many bad records", parts_.front().files.front()),
                 .got = fmt::format("{}", left_out_),
                 .allowed = fmt::format("data.max_bad_records = {}", config_.max_bad_records)});
  }
  for (Part& part : parts_) {
    find_layout(part);
  }
  if (bytes_ <= static_cast<uint64_t>(config_.check_bytes)) {
    check_all();
  }
}

void Sources::open_part(const SourceConfig& source, Side side) {
  parts_.push_back({.config = source,
                    .columns = ColumnNames(source.columns),
                    .layout = Layout::Text,
                    .detected = false,
                    .first = size_,
                    .size = 0,
                    .first_record = records_,
                    .selection = std::nullopt,
                    .files = expand_files(source.files),
                    .made_for = std::nullopt});
  Part& part = parts_.back();
  for (const std::string& path : part.files) {
    is_store_manifest(path) ? open_store(path) : open_file(path);
  }
  part.size = records_ - part.first_record;
  if (config_.replay.has_value() && part.config.name == kReplayName) {
    select_replay(part);
  } else if (side != Side::All && config_.validation_fraction > 0) {
    select(part, side);
  }
  part.size = std::min(part.size, part.config.max_examples.value_or(part.size));
  size_ += part.size;
}

void Sources::open_file(const std::string& path) {
  const Part& part = parts_.back();
  StagedFile staged = stage(path, part.config.format, config_, part.columns.wanted());
  const IndexOptions options{.max_record_bytes = static_cast<uint64_t>(config_.max_line_bytes),
                             .folder = config_.index_dir};
  RecordIndex index = RecordIndex::build(staged.file, staged.form, options);
  CsvHeader header = is_csv(staged.form)
                         ? read_csv_header(staged.file, staged.form == FileForm::Tsv)
                         : CsvHeader{};
  files_.push_back({.file = std::move(staged.file),
                    .form = staged.form,
                    .index = std::move(index),
                    .fingerprint = staged.fingerprint,
                    .header = std::move(header),
                    .part = parts_.size() - 1,
                    .first = records_,
                    .tokens = nullptr});
  const File& file = files_.back();
  if (part.made_for) {
    refuse_mixed(path);
  }
  check_faults(file);
  if (file.index.size() == 0) {
    throw Error(ErrorKind::Data,
                {.where = kSourcesWhere,
                 .what = path + ": the data file holds no records",
                 .allowed = "one record or more"});
  }
  records_ += static_cast<int64_t>(file.index.size());
  bytes_ += file.file.size();
}

void Sources::open_store(const std::string& manifest) {
  Part& part = parts_.back();
  StoredTokens stored = open_stored(manifest, part.config, config_, bundle_);
  const bool follows = records_ > part.first_record;
  if (follows && (part.layout != stored.layout || part.made_for != stored.train_on)) {
    refuse_mixed(manifest);
  }
  part.layout = stored.layout;
  part.detected = true;
  part.made_for = stored.train_on;
  DataFile file = DataFile::open(manifest);
  const std::string fingerprint = file.fingerprint();
  files_.push_back({.file = std::move(file),
                    .form = FileForm::Jsonl,
                    .index = {},
                    .fingerprint = fingerprint,
                    .header = {},
                    .part = parts_.size() - 1,
                    .first = records_,
                    .tokens = std::move(stored.store)});
  records_ += files_.back().records();
  bytes_ += files_.back().tokens->token_bytes();
}

void Sources::check_faults(const File& file) {
  const Faults& faults = file.index.faults();
  if (faults.count == 0) {
    return;
  }
  if (!skips_bad()) {
    throw Error(ErrorKind::Data,
                {.where = kSourcesWhere,
                 .what = fmt::format("{}:{}:{}: {}",
                                     file.file.path(),
                                     faults.first_line,
                                     faults.first_byte,
                                     describe_fault(faults)),
                 .got = fmt::format("{} bad records in this file", faults.count),
                 .hint = "mend the file, or data.on_bad_record: skip"});
  }
  left_out_ += static_cast<int64_t>(faults.count);
}

/// Keeps one side of the split.
void Sources::select(Part& part, Side side) {
  Selection::Options options{.fraction = config_.validation_fraction,
                             .side = side,
                             .key = {},
                             .folder = config_.index_dir};
  for (const File& file : files_) {
    options.key += file.part + 1 == parts_.size() ? file.fingerprint + "\n" : "";
  }
  options.key += fmt::format("{}|{}|{}|{}",
                             part.config.format,
                             config_.text_split,
                             config_.max_line_bytes,
                             config_.text_windows);
  const int64_t first = part.first_record;
  part.selection = Selection::build(
      part.size, [&](int64_t i) { return read(place(first + i)); }, options);
  if (part.selection->size() == 0) {
    throw Error(
        ErrorKind::Data,
        {.where = kSourcesWhere,
         .what = fmt::format("{}: no record falls on the {} side of the split",
                             part.config.name,
                             side == Side::Train ? "training" : "validation"),
         .got = fmt::format(
             "{} records, data.validation_fraction = {}", part.size, config_.validation_fraction),
         .hint = "another fraction, or held-out files in data.eval"});
  }
  part.size = part.selection->size();
}

/// As many records as the ratio asks for beside those of the other parts; all when there are fewer.
void Sources::select_replay(Part& part) {
  const int64_t count = std::min(replay_count(size_, config_.replay->ratio), part.size);
  const int64_t first = part.first_record;
  const RecordList general{part.size, [&](int64_t i) { return read(place(first + i)); }};
  const RecordList own{size_, [&](int64_t i) { return raw(i); }};
  part.selection = Selection::of(config_.replay->similar ? similar_records(count, general, own)
                                                         : random_records(count, part.size));
  part.size = count;
}

size_t Sources::part_of(int64_t index) const {
  if (index < 0 || index >= size_) {
    throw Error(ErrorKind::Internal,
                {.where = kSourcesWhere,
                 .what = "there is no such record",
                 .got = std::to_string(index),
                 .allowed = fmt::format("0 to {}", size_ - 1)});
  }
  const auto after =
      std::upper_bound(parts_.begin(), parts_.end(), index, [](int64_t i, const Part& part) {
        return i < part.first;
      });
  return static_cast<size_t>(after - parts_.begin()) - 1;
}

int64_t Sources::record_of(int64_t index) const {
  const Part& part = parts_[part_of(index)];
  const int64_t within = index - part.first;
  return part.first_record + (part.selection ? (*part.selection)[within] : within);
}

Sources::Place Sources::place(int64_t record) const {
  const auto after =
      std::upper_bound(files_.begin(), files_.end(), record, [](int64_t i, const File& file) {
        return i < file.first;
      });
  const File& file = *std::prev(after);
  if (file.tokens) {
    const auto number = static_cast<uint64_t>(record - file.first);
    const auto line = std::min<uint64_t>(number + 1, std::numeric_limits<uint32_t>::max());
    return {file, {.offset = number, .length = 0, .line = static_cast<uint32_t>(line)}};
  }
  return {file, file.index.entries()[static_cast<size_t>(record - file.first)]};
}

std::string Sources::origin_of(const Place& place) const {
  return fmt::format("{}:{}", place.file.file.path(), place.entry.line);
}

std::string Sources::read(const Place& place) const {
  if (place.file.tokens) {
    return token_bytes(tokens_at(place));
  }
  return place.file.file.read(place.entry.offset, place.entry.length & ~kContinues);
}

std::string Sources::origin(int64_t index) const {
  return origin_of(place(record_of(index)));
}

std::string Sources::raw(int64_t index) const {
  return read(place(record_of(index)));
}

bool Sources::continues(int64_t index) const {
  return (place(record_of(index)).entry.length & kContinues) != 0 && follows(index);
}

core::Json Sources::json_of(const Place& place, const std::string& origin) const {
  const ColumnNames& columns = parts_[place.file.part].columns;
  if (is_csv(place.file.form)) {
    return record_of_row(read(place), place.file.header, columns, origin);
  }
  return columns.apply(
      parse_record(read(place), origin, static_cast<size_t>(config_.max_line_bytes)), origin);
}

Record Sources::record(int64_t index) const {
  const Place found = place(record_of(index));
  std::string origin = origin_of(found);
  if (found.file.tokens) {
    return record_of_tokens(tokens_at(found), *bundle_, origin);
  }
  if (is_plain_text(found.file.form)) {
    Record record;
    record.completion = unix_line_ends(read(found));
    record.origin = std::move(origin);
    return record;
  }
  const bool has_template = bundle_ != nullptr && bundle_->chat_template.has_value();
  return to_record(json_of(found, origin), parts_[found.file.part].layout, has_template, origin);
}

TokenizedRecord Sources::tokens_at(const Place& place) const {
  std::optional<TokenizedRecord> tokens =
      place.file.tokens->get(static_cast<int64_t>(place.entry.offset));
  if (!tokens) {
    throw Error(ErrorKind::Data,
                {.where = kSourcesWhere,
                 .what = origin_of(place) + ": the record could not be prepared when the token "
                                            "store was made"});
  }
  return std::move(*tokens);
}

std::optional<TokenizedRecord> Sources::tokenized(int64_t index) const {
  if (!parts_[part_of(index)].made_for) {
    return std::nullopt;
  }
  return tokens_at(place(record_of(index)));
}

void Sources::tolerate_current_error(int64_t index) const {
  const int64_t record = record_of(index);
  count_bad(record, origin_of(place(record)));
}

void Sources::count_bad(int64_t key, const std::string& origin) const {
  try {
    throw;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data || !skips_bad()) {
      throw;
    }
  }
  const std::scoped_lock lock(bad_->mutex);
  bad_->seen.insert(key);
  const int64_t count = left_out_ + static_cast<int64_t>(bad_->seen.size());
  if (count > config_.max_bad_records) {
    throw Error(ErrorKind::Data,
                {.where = kSourcesWhere,
                 .what = origin + ": one bad record too many",
                 .got = fmt::format("{}", count),
                 .allowed = fmt::format("data.max_bad_records = {}", config_.max_bad_records)});
  }
}

int64_t Sources::bad_records() const {
  const std::scoped_lock lock(bad_->mutex);
  return left_out_ + static_cast<int64_t>(bad_->seen.size());
}

core::Json Sources::json(int64_t index) const {
  const Place found = place(record_of(index));
  if (!found.file.tokens && !is_plain_text(found.file.form)) {
    return json_of(found, origin_of(found));
  }
  core::Json document = core::Json::object();
  document["text"] = found.file.tokens ? record(index).completion : unix_line_ends(read(found));
  return document;
}

std::string Sources::fingerprint() const {
  std::string text;
  for (const File& file : files_) {
    text += file.fingerprint + "\n";
  }
  for (const Part& part : parts_) {
    text += fmt::format("{}|{}|{}|{}\n",
                        part.size,
                        name_of(part.layout),
                        part.config.weight.value_or(0.0),
                        part.selection ? config_.validation_fraction : 0.0);
    text += part.config.name == kReplayName && part.selection
                ? fmt::format("replay {} {}\n", config_.replay->ratio, config_.replay->similar)
                : "";
    for (const auto& [name, column] : part.config.columns.given()) {
      text += name + "=" + column + "\n";
    }
  }
  return text;
}

}  // namespace kamerton::data
