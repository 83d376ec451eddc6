// SPDX-License-Identifier: Apache-2.0
// Tokens made once: a folder of parts under a name that says what they were made from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/data/dataset.h"

#include "store_key.h"
#include "token_part.h"

namespace kamerton::data {

inline constexpr char kStoreManifest[] = "manifest.json";

struct StoreManifest {
  StoreKey key;
  int64_t records = 0;
  std::vector<PartInfo> parts;  ///< in order, without gaps
};

/// Canonical text, with a digest of itself at the end: same store, same bytes.
std::string to_text(const StoreManifest& manifest);
/// ErrorKind::Data naming `origin` for whatever to_text() would not have written.
StoreManifest manifest_from_text(const std::string& text, const std::string& origin);
/// Reads and checks the manifest of a store's folder. nullopt when there is none.
std::optional<StoreManifest> read_manifest(const std::filesystem::path& folder);

/// A whole store, open for reading. Thread-safe.
class TokenStore {
 public:
  /// Compares the digest of every part before anything is used (`digest`: how it is had).
  /// ErrorKind::Data when the store belongs to another key or is damaged.
  static TokenStore open(const std::filesystem::path& folder,
                         const std::string& key,
                         int64_t vocab_size,
                         const PartDigest& digest);

  int64_t size() const { return size_; }
  /// Of all its tokens.
  uint64_t token_bytes() const;
  const std::filesystem::path& folder() const { return folder_; }
  /// What record `index` was as tokens; nullopt when it could not be prepared.
  std::optional<TokenizedRecord> get(int64_t index) const;

 private:
  std::filesystem::path folder_;
  int64_t size_ = 0;
  std::vector<PartReader> parts_;
};

/// Digests that the processes of a node take once and share, in data.index_dir.
PartDigest part_digests(const DataConfig& config, int threads);

/// The store of these data by data.store: nullopt when it is off, or auto and there is none.
/// ErrorKind::Data when it is required and missing, or damaged.
std::optional<TokenStore> find_store(const Dataset::Impl& data);

}  // namespace kamerton::data
