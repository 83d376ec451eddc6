// SPDX-License-Identifier: Apache-2.0
// The seam to the operating system's files; tests put an in-memory or a failing twin behind it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kamerton::storage {

/// Every function throws core::Error with the path and the system's reason: Io for failing devices
/// and full disks (with bytes needed and free), Output when something cannot be created, Permission
/// when it is not allowed, Data when an input is missing. Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  /// Creates or replaces the file in place and fsyncs it. Not atomic: see write_file_atomic.
  virtual void write_file(const std::filesystem::path& path, std::string_view bytes) = 0;
  /// The whole file; Data when it is missing or longer than max_bytes.
  virtual std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) const = 0;
  /// Replaces an existing file, or an empty folder.
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  /// Makes the names in a folder durable.
  virtual void sync_directory(const std::filesystem::path& folder) = 0;
  /// With parents; nothing to do when it exists.
  virtual void make_directories(const std::filesystem::path& folder) = 0;
  /// A file or a folder with all it holds; a missing path is fine.
  virtual void remove_all(const std::filesystem::path& path) = 0;
  /// The names in a folder, sorted; empty when there is no such folder.
  virtual std::vector<std::string> list(const std::filesystem::path& folder) const = 0;
  /// The size of a regular file; nullopt when there is none.
  virtual std::optional<uint64_t> file_size(const std::filesystem::path& path) const = 0;
  virtual bool is_directory(const std::filesystem::path& path) const = 0;
  /// Bytes that this user may still write below the folder.
  virtual uint64_t free_bytes(const std::filesystem::path& folder) const = 0;
};

/// The real one.
FileSystem& posix_filesystem();

/// Readers see the old file or the new one, whatever happens: temporary file, fsync, rename, fsync
/// of the folder. On an error before the rename the temporary file is removed and the old file
/// stands.
void write_file_atomic(FileSystem& files,
                       const std::filesystem::path& path,
                       std::string_view bytes);

/// To be asked before long work whose result will be written to `path`: makes the temporary file of
/// write_file_atomic and removes it. Throws as that would.
void check_output_file(FileSystem& files, const std::filesystem::path& path);

/// fsync of one regular file.
void sync_file(const std::filesystem::path& path);

}  // namespace kamerton::storage
