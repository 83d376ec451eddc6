// SPDX-License-Identifier: Apache-2.0
// The records of all files of a data set, by number, source after source.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kamerton/data/config.h"
#include "kamerton/data/dataset.h"
#include "kamerton/data/example.h"

#include "column_map.h"
#include "csv.h"
#include "data_file.h"
#include "layout.h"
#include "record_index.h"
#include "selection.h"
#include "token_store.h"

namespace kamerton::data {

/// What the data set is made of, with the settings that each source takes over from DataConfig:
/// data.sources, or one source of all files; for training the replayed one last. ErrorKind::Config
/// for settings that exclude each other.
std::vector<SourceConfig> train_sources(const DataConfig& config, Side side);
inline constexpr const char* kReplayName = "replay";
/// One source of these files.
std::vector<SourceConfig> sources_of_files(const std::vector<std::string>& files,
                                           const DataConfig& config);

/// Immutable once opened but for the list of bad records; all methods are thread-safe.
class Sources {
 public:
  /// A source of the mixture.
  struct Part {
    SourceConfig config;
    ColumnNames columns;
    Layout layout = Layout::Text;
    bool detected = false;
    int64_t first = 0;         ///< number of its first example
    int64_t size = 0;          ///< examples
    int64_t first_record = 0;  ///< among the records of all files
    std::optional<Selection> selection;
    std::vector<std::string> files;
    /// The files are token stores; what they were made for.
    std::optional<TrainOn> made_for;
  };

  /// Opens and indexes the files, finds each source's layout from the first records of each file,
  /// and checks every record of small data sets. `bundle`: with its template alpaca records
  /// become conversations, and token stores must fit it; null: texts only. It must outlive this.
  Sources(const std::vector<SourceConfig>& sources,
          const DataConfig& config,
          Side side,
          const text::TokenizerBundle* bundle);

  int64_t size() const { return size_; }
  /// "file:line".
  std::string origin(int64_t index) const;
  std::string raw(int64_t index) const;
  /// ErrorKind::Data naming file and line.
  Record record(int64_t index) const;
  /// What a token store holds of the example; nullopt for one that is text. ErrorKind::Data where
  /// it could not be prepared when the store was made.
  std::optional<TokenizedRecord> tokenized(int64_t index) const;
  /// The record as JSON, its columns under the names that layouts know; a document of plain text is
  /// {"text": ...}. Errors as record().
  core::Json json(int64_t index) const;
  /// Bytes of a record as it lies in its file.
  uint64_t record_bytes(int64_t index) const {
    return place(record_of(index)).entry.length & ~kContinues;
  }
  /// A piece of plain text that goes on from the record before.
  bool continues(int64_t index) const;
  /// Whether the example before is the record before: nothing between them was left out.
  bool follows(int64_t index) const {
    return index > 0 && record_of(index - 1) + 1 == record_of(index);
  }

  /// on_bad_record: skip: counts a record once, throws ErrorKind::Data when there are too many.
  /// error: rethrows. Call it in a handler of the record's error.
  void tolerate_current_error(int64_t index) const;
  int64_t bad_records() const;

  const std::vector<Part>& parts() const { return parts_; }
  /// Which of parts() an example belongs to.
  size_t part_of(int64_t index) const;
  uint64_t bytes() const { return bytes_; }
  /// Of the contents: sizes, heads and tails, and of what is taken from them.
  std::string fingerprint() const;

 private:
  struct File {
    DataFile file;
    FileForm form;
    RecordIndex index;
    std::string fingerprint;
    CsvHeader header;
    size_t part = 0;
    int64_t first = 0;                         ///< number of its first record
    std::shared_ptr<const TokenStore> tokens;  ///< the file is this store's manifest

    int64_t records() const { return tokens ? tokens->size() : static_cast<int64_t>(index.size()); }
  };
  struct Bad {
    std::mutex mutex;
    std::set<int64_t> seen;
  };
  /// A record's place.
  struct Place {
    const File& file;
    Entry entry;  ///< of a token store: `offset` is the record's number in it
  };

  void open_part(const SourceConfig& source, Side side);
  void open_file(const std::string& path);
  void open_store(const std::string& manifest);
  void check_faults(const File& file);
  void select(Part& part, Side side);
  void select_replay(Part& part);
  void find_layout(Part& part);
  void note_layout(Part& part, int64_t record);
  void check_all() const;
  /// Number among all files' records of an example.
  int64_t record_of(int64_t index) const;
  Place place(int64_t record) const;
  std::string origin_of(const Place& place) const;
  std::string read(const Place& place) const;
  TokenizedRecord tokens_at(const Place& place) const;
  core::Json json_of(const Place& place, const std::string& origin) const;
  /// Hands a record's error to tolerate_current_error's count.
  void count_bad(int64_t key, const std::string& origin) const;
  bool skips_bad() const { return config_.on_bad_record == "skip"; }

  DataConfig config_;
  const text::TokenizerBundle* bundle_;
  std::vector<File> files_;
  std::vector<Part> parts_;
  int64_t size_ = 0;
  int64_t records_ = 0;
  uint64_t bytes_ = 0;
  int64_t left_out_ = 0;  // by the scan
  std::unique_ptr<Bad> bad_ = std::make_unique<Bad>();
};

}  // namespace kamerton::data
