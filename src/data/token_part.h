// SPDX-License-Identifier: Apache-2.0
// One file of a token store: the tokens of a stretch of records. STORE.md has the layout.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/core/json.h"

#include "data_file.h"
#include "preparer.h"

namespace kamerton::data {

inline constexpr char kStoreFormat[] = "kamerton token store 1";

/// A record as tokens: of a preference both answers, else `pair.chosen` alone.
struct TokenizedRecord {
  TokenizedPair pair;
  bool preference = false;
  std::optional<bool> label;
};

/// What the manifest says of a part; a reader takes sizes from here, never from the part.
struct PartInfo {
  std::string file;   ///< a name in the store's folder
  int64_t first = 0;  ///< its first record's number
  int64_t records = 0;
  int64_t tokens = 0;
  int64_t spans = 0;    ///< trained stretches
  int64_t targets = 0;  ///< trained tokens
  int64_t bad = 0;      ///< records that could not be prepared (data.on_bad_record: skip)
  int64_t bytes = 0;    ///< of the file
  std::string digest;   ///< of the file: part_digest()
};

core::Json to_json(const PartInfo& info);
/// Strict: every field there, sizes not negative, sums possible. ErrorKind::Data naming `origin`.
PartInfo part_from_json(const core::Json& json, const std::string& origin);

/// A part's digest, "poly1305-tree:<hex>".
using PartDigest = std::function<std::string(const std::filesystem::path& path)>;
/// Reads the whole file at each call.
PartDigest fresh_digests(int threads);

/// Collects records in memory and writes them as one file.
class PartWriter {
 public:
  void add(const TokenizedRecord& record);
  void add_bad();
  /// HDF5 under a temporary name, made durable, then renamed. Fills in tokens, spans, bytes, digest
  /// of `info` (file, first and records are given).
  void publish(const std::filesystem::path& folder, const std::string& key, PartInfo& info) const;

 private:
  void append(const Tokenized& tokenized, int32_t base);

  std::vector<int32_t> tokens_;
  std::vector<int64_t> offsets_ = {0};
  std::vector<int32_t> spans_;
  std::vector<int64_t> span_offsets_ = {0};
  std::vector<int32_t> splits_;
  std::vector<uint8_t> flags_;
  int64_t targets_ = 0;
};

/// Whether the file is there and has this size and digest.
bool part_is_whole(const std::filesystem::path& folder,
                   const PartInfo& info,
                   const PartDigest& digest);

/// A part open for reading. Thread-safe.
class PartReader {
 public:
  /// Size and digest are compared before HDF5 opens the file; HDF5 then only says where the
  /// datasets lie (contiguous, in this file, of the types we write), and records are read by
  /// position. ErrorKind::Data naming the file.
  PartReader(const std::filesystem::path& folder,
             const PartInfo& info,
             int64_t vocab_size,
             const PartDigest& digest);

  const PartInfo& info() const { return info_; }
  /// Record `index` of the part; nullopt when it could not be prepared. ErrorKind::Io when the file
  /// has changed or its contents contradict each other.
  std::optional<TokenizedRecord> get(int64_t index) const;

 private:
  void read_trained(int64_t index, std::vector<uint8_t>& trained) const;
  std::pair<int64_t, int64_t> range(int64_t place, int64_t index, int64_t limit) const;
  [[noreturn]] void damaged(const std::string& what) const;

  PartInfo info_;
  int64_t vocab_size_;
  DataFile file_;
  int64_t tokens_at_ = 0;
  int64_t offsets_at_ = 0;
  int64_t spans_at_ = 0;
  int64_t span_offsets_at_ = 0;
  int64_t splits_at_ = 0;
  int64_t flags_at_ = 0;
};

}  // namespace kamerton::data
