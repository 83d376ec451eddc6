// SPDX-License-Identifier: Apache-2.0
// One input file, read by position; notices when it changes under a run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "descriptor_pool.h"

namespace kamerton::data {

/// Read-only. Thread-safe after opening. pread, not a mapping: a file cut short is an error here,
/// not a signal.
class DataFile {
 public:
  /// ErrorKind::Data when it is missing, empty, a folder, or not a regular file; Permission; Io.
  /// There may be more of them than descriptors: DescriptorPool.
  static DataFile open(const std::string& path);
  /// What lies from byte `start` on in a file of our own making, a copy in another form of the file
  /// that `name` says: errors speak of `name`. Other runs that use it renew its time.
  static DataFile open_copy(const std::string& path, uint64_t start, const std::string& name);
  DataFile(DataFile&& other) noexcept = default;
  DataFile& operator=(DataFile&& other) noexcept;
  ~DataFile();

  /// What errors call it.
  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  int64_t modified_ns() const { return modified_ns_; }

  /// Exactly `length` bytes from `offset`. ErrorKind::Data when the file was removed, cut or
  /// rewritten since open() (naming the byte), or cannot be read.
  std::string read(uint64_t offset, uint64_t length) const;
  void read_into(uint64_t offset, char* bytes, uint64_t length) const;

  /// Size, and a hash of the first and last 64 KiB, as text.
  std::string fingerprint() const;

 private:
  /// The file at `path`, which errors call `name`.
  DataFile(const std::string& path, const std::string& name);
  std::shared_ptr<Descriptor> descriptor(uint64_t offset) const;
  void check_unchanged(const Descriptor& descriptor, uint64_t offset) const;
  [[noreturn]] void changed(const std::string& how, uint64_t offset) const;
  [[noreturn]] void unreadable(uint64_t offset, int code) const;

  std::string path_;
  std::unique_ptr<DescriptorPool::Member> member_;
  uint64_t start_ = 0;
  uint64_t size_ = 0;
  int64_t modified_ns_ = 0;
  bool copy_ = false;
};

}  // namespace kamerton::data
