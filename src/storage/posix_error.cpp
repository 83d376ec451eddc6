// SPDX-License-Identifier: Apache-2.0
#include "posix_error.h"

#include <algorithm>
#include <cstddef>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::storage {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

/// Linux moves at most 2 GiB - 4 KiB a call; smaller pieces keep the page cache's write-back busy
/// meanwhile.
constexpr uint64_t kLargestTransfer = uint64_t{64} << 20;

/// Free bytes near `path`, "" when that cannot be told.
std::string free_text(const std::filesystem::path& path) {
  try {
    return core::format_bytes(posix_filesystem().free_bytes(path.parent_path()));
  } catch (const std::exception&) {
    return "an unknown amount";
  }
}

}  // namespace

void throw_read_error(const std::string& where, const std::filesystem::path& path, int error) {
  using core::ErrorKind;
  const auto quoted = "'" + path.string() + "'";
  if (error == ENOENT || error == ENOTDIR) {
    throw core::Error(ErrorKind::Data,
                      {.where = where,
                       .what = "there is no file " + quoted,
                       .got = "",
                       .allowed = "",
                       .hint = "checking the path"});
  }
  if (error == EACCES || error == EPERM) {
    throw core::Error(ErrorKind::Permission,
                      {.where = where,
                       .what = "may not read " + quoted,
                       .got = reason(error),
                       .allowed = "",
                       .hint = "asking its owner for read permission"});
  }
  if (error == EISDIR) {
    throw core::Error(ErrorKind::Data,
                      {.where = where,
                       .what = quoted + " is a folder",
                       .got = "",
                       .allowed = "a regular file",
                       .hint = ""});
  }
  throw core::Error(ErrorKind::Io,
                    {.where = where,
                     .what = "reading " + quoted + " failed",
                     .got = reason(error),
                     .allowed = "",
                     .hint = ""});
}

void throw_write_error(const std::string& where,
                       const std::filesystem::path& path,
                       int error,
                       uint64_t needed) {
  using core::ErrorKind;
  const auto quoted = "'" + path.string() + "'";
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  if (full) {
    std::string got = reason(error) + ", " + free_text(path) + " free";
    if (needed > 0) {
      got += ", " + core::format_bytes(needed) + " needed";
    }
    throw core::Error(ErrorKind::Io,
                      {.where = where,
                       .what = "no space to write " + quoted,
                       .got = got,
                       .allowed = "",
                       .hint = "freeing space or quota, or another output folder"});
  }
  const bool impossible = error == EACCES || error == EPERM || error == EROFS || error == ENOENT ||
                          error == ENOTDIR || error == EEXIST || error == EISDIR ||
                          error == ENAMETOOLONG;
  throw core::Error(impossible ? ErrorKind::Output : ErrorKind::Io,
                    {.where = where,
                     .what = (impossible ? "cannot create " : "writing failed: ") + quoted,
                     .got = reason(error),
                     .allowed = "",
                     .hint = impossible ? "a folder that may be written to" : ""});
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    close();
    value_ = other.release();
  }
  return *this;
}

Descriptor::~Descriptor() {
  close();
}

int Descriptor::release() noexcept {
  return std::exchange(value_, -1);
}

int Descriptor::close() noexcept {
  const int descriptor = release();
  return descriptor >= 0 && ::close(descriptor) != 0 ? errno : 0;
}

Descriptor open_regular_file(const std::string& where,
                             const std::filesystem::path& path,
                             uint64_t& size) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it has no effect on regular files.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) {
    throw_read_error(where, path, errno);
  }
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) {
    throw_read_error(where, path, errno);
  }
  if (S_ISDIR(status.st_mode)) {
    throw_read_error(where, path, EISDIR);
  }
  if (!S_ISREG(status.st_mode)) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = where,
                       .what = "'" + path.string() + "' is not a regular file",
                       .got = "a device, pipe or socket",
                       .allowed = "a regular file",
                       .hint = ""});
  }
  size = static_cast<uint64_t>(status.st_size);
  return file;
}

int write_fully(int descriptor, const void* data, uint64_t size, uint64_t offset) noexcept {
  const auto* bytes = static_cast<const std::byte*>(data);
  while (size > 0) {
    const auto piece = static_cast<size_t>(std::min(size, kLargestTransfer));
    const ssize_t written = ::pwrite(descriptor, bytes, piece, static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) {
        continue;
      }
      return errno;
    }
    bytes += written;
    offset += static_cast<uint64_t>(written);
    size -= static_cast<uint64_t>(written);
  }
  return 0;
}

int read_fully(int descriptor, void* data, uint64_t size, uint64_t offset) noexcept {
  auto* bytes = static_cast<std::byte*>(data);
  while (size > 0) {
    const auto piece = static_cast<size_t>(std::min(size, kLargestTransfer));
    const ssize_t got = ::pread(descriptor, bytes, piece, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return got < 0 ? errno : EIO;
    }
    bytes += got;
    offset += static_cast<uint64_t>(got);
    size -= static_cast<uint64_t>(got);
  }
  return 0;
}

}  // namespace kamerton::storage
