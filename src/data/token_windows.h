// SPDX-License-Identifier: Apache-2.0
// Raw text joined and cut into windows of equal length.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kamerton/data/example.h"

#include "cache_file.h"
#include "preparer.h"
#include "sources.h"

namespace kamerton::data {

/// All tokens of all documents in order, each document's first one marked, on disk when there are
/// many.
class TokenWindows {
 public:
  struct Options {
    int64_t length = 0;  ///< tokens of a window
    std::string key;     ///< of everything that the tokens depend on
    std::optional<std::string> folder;
    uint64_t small_bytes = uint64_t{16} << 20;  ///< less text than this is kept in memory
  };
  /// The tokens of record `index`; a document's first one is not trained. ErrorKind::Data for a bad
  /// record.
  using Piece = std::function<Tokenized(int64_t index)>;
  static TokenWindows build(const Sources& sources, const Piece& piece, const Options& options);

  int64_t size() const;
  int64_t tokens() const { return static_cast<int64_t>(all().size()); }
  /// Window `index`: nothing is trained across documents; the last window may be shorter.
  Example get(int64_t index) const;

 private:
  std::span<const uint32_t> all() const;

  int64_t length_ = 0;
  std::vector<uint32_t> small_;
  std::optional<CacheFile> table_;
};

}  // namespace kamerton::data
