// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/filesystem.h"

#include <algorithm>
#include <system_error>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"

#include "posix_error.h"

namespace kamerton::storage {
namespace {

constexpr char kFilesystemWhere[] = "storage.filesystem";

/// The nearest ancestor that exists: statvfs of a folder that will be made later.
std::filesystem::path existing_ancestor(std::filesystem::path path) {
  std::error_code ignored;
  if (path.empty()) {
    return ".";
  }
  while (!std::filesystem::exists(path, ignored) && path.has_parent_path() &&
         path != path.parent_path()) {
    path = path.parent_path();
  }
  return std::filesystem::exists(path, ignored) ? path : std::filesystem::path(".");
}

class PosixFileSystem final : public FileSystem {
 public:
  void write_file(const std::filesystem::path& path, std::string_view bytes) override {
    Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (!file) {
      throw_write_error(kFilesystemWhere, path, errno, bytes.size());
    }
    if (const int error = write_fully(file.get(), bytes.data(), bytes.size(), 0); error != 0) {
      throw_write_error(kFilesystemWhere, path, error, bytes.size());
    }
    if (::fsync(file.get()) != 0) {
      throw_write_error(kFilesystemWhere, path, errno, bytes.size());
    }
    if (const int error = file.close(); error != 0) {
      throw_write_error(kFilesystemWhere, path, error, bytes.size());
    }
  }

  std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) const override {
    uint64_t size = 0;
    const Descriptor file = open_regular_file(kFilesystemWhere, path, size);
    if (size > max_bytes) {
      throw core::Error(core::ErrorKind::Data,
                        {.where = kFilesystemWhere,
                         .what = "'" + path.string() + "' is too long",
                         .got = core::format_bytes(size),
                         .allowed = "at most " + core::format_bytes(max_bytes),
                         .hint = ""});
    }
    std::string text(size, '\0');
    if (const int error = read_fully(file.get(), text.data(), size, 0); error != 0) {
      throw_read_error(kFilesystemWhere, path, error);
    }
    return text;
  }

  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) {
      throw_write_error(kFilesystemWhere, to, errno);
    }
  }

  void sync_directory(const std::filesystem::path& folder) override {
    const std::filesystem::path place = folder.empty() ? std::filesystem::path(".") : folder;
    const Descriptor directory(::open(place.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) {
      throw_write_error(kFilesystemWhere, place, errno);
    }
    // EINVAL: a file system without folder fsync (its renames are then as durable as they get).
    if (::fsync(directory.get()) != 0 && errno != EINVAL) {
      throw_write_error(kFilesystemWhere, place, errno);
    }
  }

  void make_directories(const std::filesystem::path& folder) override {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (!error && !std::filesystem::is_directory(folder, error)) {
      error = std::make_error_code(std::errc::not_a_directory);
    }
    if (error) {
      throw_write_error(kFilesystemWhere, folder, error.value());
    }
  }

  void remove_all(const std::filesystem::path& path) override {
    std::error_code error;
    std::filesystem::remove_all(path, error);
    if (error) {
      throw_write_error(kFilesystemWhere, path, error.value());
    }
  }

  std::vector<std::string> list(const std::filesystem::path& folder) const override {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end;
         entry.increment(error)) {
      names.push_back(entry->path().filename().string());
    }
    if (error && error != std::errc::no_such_file_or_directory) {
      throw_read_error(kFilesystemWhere, folder, error.value());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  std::optional<uint64_t> file_size(const std::filesystem::path& path) const override {
    struct stat status = {};
    if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
      return std::nullopt;
    }
    return static_cast<uint64_t>(status.st_size);
  }

  bool is_directory(const std::filesystem::path& path) const override {
    struct stat status = {};
    return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  }

  uint64_t free_bytes(const std::filesystem::path& folder) const override {
    const auto place = existing_ancestor(folder);
    struct statvfs status = {};
    if (::statvfs(place.c_str(), &status) != 0) {
      throw_read_error(kFilesystemWhere, place, errno);
    }
    return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
  }
};

}  // namespace

FileSystem& posix_filesystem() {
  static PosixFileSystem instance;  // without state
  return instance;
}

void write_file_atomic(FileSystem& files,
                       const std::filesystem::path& path,
                       std::string_view bytes) {
  auto temporary = path;
  temporary += ".tmp";
  try {
    files.write_file(temporary, bytes);
    files.rename(temporary, path);
  } catch (...) {
    try {
      files.remove_all(temporary);
    } catch (const std::exception&) {
      // The first error is the one to report; the litter has a fixed name and is replaced next
      // time.
    }
    throw;
  }
  files.sync_directory(path.parent_path());
}

void check_output_file(FileSystem& files, const std::filesystem::path& path) {
  if (files.is_directory(path)) {
    throw_write_error(kFilesystemWhere, path, EISDIR);
  }
  auto temporary = path;
  temporary += ".tmp";
  files.write_file(temporary, {});
  files.remove_all(temporary);
}

void sync_file(const std::filesystem::path& path) {
  Descriptor file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file) {
    throw_write_error(kFilesystemWhere, path, errno);
  }
  if (::fsync(file.get()) != 0) {
    throw_write_error(kFilesystemWhere, path, errno);
  }
  if (const int error = file.close(); error != 0) {
    throw_write_error(kFilesystemWhere, path, error);
  }
}

}  // namespace kamerton::storage
