// SPDX-License-Identifier: Apache-2.0
#include "locked_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kamerton/storage/filesystem.h"

#include "faults.h"

namespace kamerton::privacy {
namespace {

[[noreturn]] void fail(core::ErrorKind kind,
                       const std::filesystem::path& path,
                       const std::string& what,
                       int error) {
  throw core::Error(kind,
                    {.where = "privacy.file",
                     .what = what + " '" + path.string() + "'",
                     .got = error == 0 ? "" : std::strerror(error)});
}

core::ErrorKind kind_of(int error) {
  switch (error) {
    case ENOENT:
    case EISDIR:
      return core::ErrorKind::Data;
    case EACCES:
    case EPERM:
    case EROFS:
      return core::ErrorKind::Permission;
    default:
      return core::ErrorKind::Io;
  }
}

void write_all(int descriptor,
               const std::filesystem::path& path,
               std::string_view bytes,
               uint64_t at) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (done < 0 && errno == EINTR) {
      continue;
    }
    if (done <= 0) {
      fail(core::ErrorKind::Io, path, "cannot write", errno);
    }
    bytes.remove_prefix(static_cast<size_t>(done));
    at += static_cast<uint64_t>(done);
  }
}

}  // namespace

LockedFile::LockedFile(const std::filesystem::path& path, Mode mode, bool wait)
    : path_(path), descriptor_(-1) {
  const int flags = mode == Mode::Read     ? O_RDONLY
                    : mode == Mode::Change ? O_RDWR
                                           : O_RDWR | O_CREAT;
  descriptor_ = ::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor_ < 0) {
    fail(kind_of(errno), path, "cannot open", errno);
  }
  const int lock = (mode == Mode::Read ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB);
  while (::flock(descriptor_, lock) != 0) {
    if (errno == EINTR) {
      continue;
    }
    const int error = errno;
    ::close(std::exchange(descriptor_, -1));
    if (error == EWOULDBLOCK) {
      fail(core::ErrorKind::Output, path, "another process writes", 0);
    }
    fail(core::ErrorKind::Io, path, "cannot lock", error);
  }
}

LockedFile::~LockedFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);  // the lock goes with it
  }
}

LockedFile::LockedFile(LockedFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

uint64_t LockedFile::size() const {
  struct stat status = {};
  if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    fail(core::ErrorKind::Data, path_, "is not a regular file:", 0);
  }
  return static_cast<uint64_t>(status.st_size);
}

std::string LockedFile::read(uint64_t max_bytes) const {
  const uint64_t bytes = size();
  if (bytes > max_bytes) {
    fail(core::ErrorKind::Data, path_, "too long:", 0);
  }
  std::string text(bytes, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t got =
        ::pread(descriptor_, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      fail(core::ErrorKind::Io, path_, "cannot read", got == 0 ? EIO : errno);
    }
    done += static_cast<size_t>(got);
  }
  return text;
}

void LockedFile::append(std::string_view bytes) {
  const uint64_t end = size();
  try {
    write_all(descriptor_, path_, bytes, end);
    if (::fsync(descriptor_) != 0) {
      fail(core::ErrorKind::Io, path_, "cannot make durable", errno);
    }
  } catch (...) {
    // What was half written must not look like a record; should this fail too, readers see a line
    // without an end and cut it.
    [[maybe_unused]] const int ignored = ::ftruncate(descriptor_, static_cast<off_t>(end));
    throw;
  }
  if (end == 0) {
    storage::posix_filesystem().sync_directory(path_.parent_path());
  }
}

void LockedFile::truncate(uint64_t bytes) {
  if (::ftruncate(descriptor_, static_cast<off_t>(bytes)) != 0 || ::fsync(descriptor_) != 0) {
    fail(core::ErrorKind::Io, path_, "cannot cut", errno);
  }
}

void write_private_file(const std::filesystem::path& path, std::string_view bytes) {
  auto temporary = path;
  temporary += ".tmp";
  ::unlink(temporary.c_str());
  const int descriptor =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0) {
    fail(errno == EACCES || errno == EPERM || errno == EROFS ? core::ErrorKind::Permission
                                                             : core::ErrorKind::Output,
         path,
         "cannot create",
         errno);
  }
  try {
    write_all(descriptor, path, bytes, 0);
    if (::fsync(descriptor) != 0) {
      fail(core::ErrorKind::Io, path, "cannot make durable", errno);
    }
    ::close(descriptor);
  } catch (...) {
    ::close(descriptor);
    ::unlink(temporary.c_str());
    throw;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    fail(core::ErrorKind::Output, path, "cannot create", error);
  }
  storage::posix_filesystem().sync_directory(path.parent_path());
}

}  // namespace kamerton::privacy
