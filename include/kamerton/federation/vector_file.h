// SPDX-License-Identifier: Apache-2.0
// Files that are read and written in ranges by several processes: vectors of fp32 and the bytes of
// updates.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace kamerton::federation {

/// A file of a known size. Ranges may be written in any order by any process. Errors: Io, Output,
/// and Data for a size that is not the expected one.
class RangeFile {
 public:
  RangeFile() = default;
  /// Makes it when it is missing; an existing one keeps its bytes and must have this size.
  static RangeFile open_or_create(const std::filesystem::path& path, int64_t size);
  /// For reading.
  static RangeFile open(const std::filesystem::path& path, int64_t size);
  ~RangeFile();
  RangeFile(RangeFile&& other) noexcept;
  RangeFile& operator=(RangeFile&& other) noexcept;

  void read(int64_t begin, std::span<std::byte> out) const;
  void write(int64_t begin, std::span<const std::byte> bytes);
  /// Elements of fp32 from element `begin`.
  void read(int64_t begin, std::span<float> out) const {
    read(begin * 4, std::as_writable_bytes(out));
  }
  void write(int64_t begin, std::span<const float> values) {
    write(begin * 4, std::as_bytes(values));
  }
  /// The bytes are on the disk afterwards.
  void sync();
  int64_t size() const { return size_; }
  explicit operator bool() const { return descriptor_ >= 0; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t size_ = 0;
};

/// Digest of a file's bytes: "blake2b-256" in hexadecimal.
std::string file_digest(const std::filesystem::path& path);

}  // namespace kamerton::federation
