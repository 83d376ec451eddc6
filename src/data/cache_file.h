// SPDX-License-Identifier: Apache-2.0
// Tables that are made from data files and can be made again: kept on disk, mapped when read.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "kamerton/storage/mapped_file.h"

namespace kamerton::data {

/// Numbers that travel in a cache file's header.
using CacheNumbers = std::array<uint64_t, 4>;

/// Appends to a file under construction; ErrorKind::Io naming it when the disk is full.
class CacheWriter {
 public:
  CacheWriter(std::filesystem::path path, std::FILE* stream)
      : path_(std::move(path)), stream_(stream) {}
  void append(std::span<const std::byte> bytes);
  uint64_t written() const { return written_; }

 private:
  std::filesystem::path path_;
  std::FILE* stream_;
  uint64_t written_ = 0;
};

/// A table on disk: payload and header numbers.
class CacheFile {
 public:
  /// Maps `folder`/<digest of key>.`suffix`, made first by `build` when there is none for this key.
  /// Of several processes one builds, the others wait. Complete files appear by rename; a torn one
  /// is never read. Making one removes tables in the folder that nobody has opened for 30 days.
  static CacheFile open_or_build(const std::optional<std::string>& folder,
                                 const std::string& key,
                                 const std::string& suffix,
                                 const std::function<CacheNumbers(CacheWriter&)>& build);

  std::span<const std::byte> payload() const;
  /// For reading by position: the payload is the file from this byte on.
  static uint64_t payload_start();
  const std::filesystem::path& path() const { return file_.path(); }
  const CacheNumbers& numbers() const { return numbers_; }

 private:
  static std::optional<CacheFile> try_open(const std::filesystem::path& path,
                                           const std::string& key_hex);
  storage::MappedFile file_;
  CacheNumbers numbers_ = {};
};

}  // namespace kamerton::data
