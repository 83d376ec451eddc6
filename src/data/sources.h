// SPDX-License-Identifier: Apache-2.0
// The records of all files of a data set, by number.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kamerton/data/config.h"
#include "kamerton/data/example.h"

#include "data_file.h"
#include "layout.h"
#include "record_index.h"

namespace kamerton::data {

/// Immutable once opened but for the list of bad records; all methods are thread-safe.
class Sources {
 public:
  /// Opens and indexes the files, finds the layout from the first records of each, and checks every
  /// record of small data sets. `has_template`: alpaca records become conversations.
  Sources(const std::vector<std::string>& paths, const DataConfig& config, bool has_template);

  int64_t size() const { return size_; }
  /// "file:line".
  std::string origin(int64_t index) const;
  std::string raw(int64_t index) const;
  /// ErrorKind::Data naming file and line.
  Record record(int64_t index) const;
  /// The files, in order.
  std::vector<std::string> files() const;
  /// Bytes of a record as it lies in its file.
  uint64_t record_bytes(int64_t index) const {
    return entry_of(source_of(index), index).length & ~kContinues;
  }
  /// A document of plain text, not a JSON record.
  bool is_document(int64_t index) const { return is_text(source_of(index)); }
  /// A piece of plain text that goes on from the record before.
  bool continues(int64_t index) const;

  /// on_bad_record: skip: counts a record once, throws ErrorKind::Data when there are too many.
  /// error: rethrows. Call it in a handler of the record's error.
  void tolerate_current_error(int64_t index) const;
  int64_t bad_records() const;

  Layout layout() const { return layout_; }
  bool layout_detected() const { return detected_; }
  uint64_t bytes() const { return bytes_; }
  /// Of the contents: sizes, heads and tails.
  std::string fingerprint() const;

 private:
  struct Source {
    DataFile file;
    FileForm form;
    RecordIndex index;
    int64_t first = 0;
  };
  struct Bad {
    std::mutex mutex;
    std::set<int64_t> seen;
  };

  void open(const std::string& path);
  void check_faults(const Source& source);
  void find_layout();
  void note_layout(int64_t index, const Source& source);
  void check_all() const;
  const Source& source_of(int64_t index) const;
  const Entry& entry_of(const Source& source, int64_t index) const;
  bool is_text(const Source& source) const;
  bool skips_bad() const { return config_.on_bad_record == "skip"; }

  DataConfig config_;
  bool has_template_;
  std::vector<Source> sources_;
  int64_t size_ = 0;
  uint64_t bytes_ = 0;
  Layout layout_ = Layout::Text;
  bool detected_ = false;
  int64_t left_out_ = 0;  // by the scan
  std::unique_ptr<Bad> bad_ = std::make_unique<Bad>();
};

}  // namespace kamerton::data
