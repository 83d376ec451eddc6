// SPDX-License-Identifier: Apache-2.0
// A file that grows by lines, locked against other processes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace kamerton::privacy {

class LockedFile {
 public:
  enum class Mode { Read, Change, Create };

  /// Create: made with mode 0600 when missing; the others: ErrorKind::Data then. wait: until others
  /// let go; otherwise ErrorKind::Output naming the file.
  LockedFile(const std::filesystem::path& path, Mode mode, bool wait = true);
  ~LockedFile();
  LockedFile(LockedFile&& other) noexcept;
  LockedFile& operator=(LockedFile&&) = delete;

  /// Throws ErrorKind::Data above max_bytes.
  std::string read(uint64_t max_bytes) const;
  /// After the last byte, on the disk when it returns. A failed append leaves the file as it was.
  void append(std::string_view bytes);
  /// Cuts the file to its first `size` bytes.
  void truncate(uint64_t size);

 private:
  uint64_t size() const;
  std::filesystem::path path_;
  int descriptor_;
};

/// Replaces a file atomically, mode 0600, and makes the name durable.
void write_private_file(const std::filesystem::path& path, std::string_view bytes);

}  // namespace kamerton::privacy
