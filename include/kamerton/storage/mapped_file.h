// SPDX-License-Identifier: Apache-2.0
// A file read through the page cache: nothing is copied until it is touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace kamerton::storage {

/// What the kernel should expect of the accesses to come.
enum class Access { Sequential, Random, WillNeed, DontNeed };

/// A read-only private mapping of a whole file. Movable; spans stay valid while the object (or what
/// it was moved to) lives. An unlinked or replaced file stays readable; a file cut short in place
/// would raise SIGBUS on access, so a long job calls check_unchanged() before each pass, or copies
/// by read(). Thread-safe after opening.
class MappedFile {
 public:
  /// Throws ErrorKind::Data when the path is missing, a folder or not a regular file, Permission
  /// when it may not be read, Io when the system fails. An empty file is allowed when allow_empty
  /// is set, else Data.
  static MappedFile open(const std::filesystem::path& path, bool allow_empty = false);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  std::string_view text() const {
    return {reinterpret_cast<const char*>(data_), static_cast<size_t>(size_)};
  }
  /// [offset, offset + length), checked against the file; throws ErrorKind::Data naming both.
  std::span<const std::byte> span(uint64_t offset, uint64_t length) const;

  /// Copies [offset, offset + into.size()) by a read instead of the mapping, for files that may be
  /// cut short while they are in use: that is an error here (Io, with the file and both lengths),
  /// no signal. Data for a range beyond the size at opening.
  void read(uint64_t offset, std::span<std::byte> into) const;

  /// A hint; never fails. The whole file, or a range of it.
  void advise(Access access) const;
  void advise(Access access, uint64_t offset, uint64_t length) const;

  /// Keeps the mapping alone, no descriptor: for many files that nobody changes. read() and
  /// check_unchanged() are not for it from then on.
  void keep_mapping_only() noexcept;

  /// Throws ErrorKind::Io when the file behind the mapping has changed its size or time of writing
  /// since open().
  void check_unchanged() const;

 private:
  void close() noexcept;

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
  int descriptor_ = -1;
  int64_t modified_ns_ = 0;
};

}  // namespace kamerton::storage
