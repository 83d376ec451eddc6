// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/vector_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"

namespace kamerton::federation {
namespace {

using core::Error;
using core::ErrorKind;

[[noreturn]] void fail(ErrorKind kind, const std::string& what, const std::filesystem::path& path) {
  throw Error(kind,
              {.where = "federation.file",
               .what = what + " '" + path.string() + "'",
               .got = std::strerror(errno)});
}

}  // namespace

RangeFile RangeFile::open_or_create(const std::filesystem::path& path, int64_t size) {
  RangeFile file;
  file.path_ = path;
  file.size_ = size;
  file.descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file.descriptor_ < 0) {
    fail(ErrorKind::Output, "cannot create", path);
  }
  struct stat facts = {};
  if (::fstat(file.descriptor_, &facts) != 0) {
    fail(ErrorKind::Io, "cannot look at", path);
  }
  if (facts.st_size != size && facts.st_size != 0) {
    throw Error(ErrorKind::Data,
                {.where = "federation.file",
                 .what = "'" + path.string() + "' has another size",
                 .got = fmt::format("{} bytes", facts.st_size),
                 .allowed = fmt::format("{} bytes", size)});
  }
  if (facts.st_size != size && ::ftruncate(file.descriptor_, size) != 0) {
    fail(ErrorKind::Io, "no room for", path);
  }
  return file;
}

RangeFile RangeFile::open(const std::filesystem::path& path, int64_t size) {
  RangeFile file;
  file.path_ = path;
  file.size_ = size;
  file.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.descriptor_ < 0) {
    fail(ErrorKind::Data, "cannot open", path);
  }
  struct stat facts = {};
  if (::fstat(file.descriptor_, &facts) != 0 || facts.st_size != size) {
    throw Error(ErrorKind::Data,
                {.where = "federation.file",
                 .what = "'" + path.string() + "' has another size",
                 .got = fmt::format("{} bytes", facts.st_size),
                 .allowed = fmt::format("{} bytes", size)});
  }
  return file;
}

RangeFile::~RangeFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

RangeFile::RangeFile(RangeFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

RangeFile& RangeFile::operator=(RangeFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  return *this;
}

void RangeFile::read(int64_t begin, std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = ::pread(
        descriptor_, out.data() + done, out.size() - done, begin + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count <= 0) {
      fail(ErrorKind::Io, "cannot read", path_);
    }
    done += static_cast<size_t>(count);
  }
}

void RangeFile::write(int64_t begin, std::span<const std::byte> bytes) {
  if (begin < 0 || begin + static_cast<int64_t>(bytes.size()) > size_) {
    throw Error(ErrorKind::Data,
                {.where = "federation.file",
                 .what = "bytes beyond the end of '" + path_.string() + "'",
                 .got = fmt::format("{} at {}", bytes.size(), begin),
                 .allowed = fmt::format("{} in all", size_)});
  }
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::pwrite(
        descriptor_, bytes.data() + done, bytes.size() - done, begin + static_cast<int64_t>(done));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      fail(ErrorKind::Io, "cannot write", path_);
    }
    done += static_cast<size_t>(count);
  }
}

void RangeFile::sync() {
  if (::fsync(descriptor_) != 0) {
    fail(ErrorKind::Io, "cannot write to the disk", path_);
  }
}

std::string file_digest(const std::filesystem::path& path) {
  return storage::to_hex(storage::digest_of_file(path));
}

}  // namespace kamerton::federation
