// SPDX-License-Identifier: Apache-2.0
#include "data_file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kDataFileWhere[] = "data.file";
constexpr uint64_t kEndBytes = 64 << 10;

std::string reason(int code) {
  return std::generic_category().message(code);
}

int64_t modified(const struct stat& status) {
  return static_cast<int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
}

[[noreturn]] void cannot_open(const std::string& path, int code) {
  const ErrorKind kind = code == ENOENT || code == ENOTDIR ? ErrorKind::Data
                         : code == EACCES || code == EPERM ? ErrorKind::Permission
                                                           : ErrorKind::Io;
  throw Error(kind,
              {.where = kDataFileWhere,
               .what = path + ": the data file cannot be opened: " + reason(code),
               .hint = "check the run's file; paths are relative to where the program "
                       "was started"});
}

void check_kind(const std::string& path, const struct stat& status) {
  if (S_ISREG(status.st_mode) && status.st_size > 0) {
    return;
  }
  const char* what = S_ISDIR(status.st_mode)    ? "is a folder, not a file"
                     : S_ISFIFO(status.st_mode) ? "is a pipe, not a file"
                     : S_ISREG(status.st_mode)  ? "is empty"
                                                : "is not a regular file";
  throw Error(ErrorKind::Data,
              {.where = kDataFileWhere,
               .what = path + ": the data file " + what,
               .allowed = "a file with "
                          "records"});
}

}  // namespace

DataFile DataFile::open(const std::string& path) {
  DataFile file;
  file.path_ = path;
  struct stat status {};
  // Asked by name first: opening a pipe would wait for a writer.
  if (::stat(path.c_str(), &status) != 0) {
    cannot_open(path, errno);
  }
  check_kind(path, status);
  file.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.descriptor_ < 0 || ::fstat(file.descriptor_, &status) != 0) {
    cannot_open(path, errno);
  }
  check_kind(path, status);
  file.size_ = static_cast<uint64_t>(status.st_size);
  file.modified_ns_ = modified(status);
  return file;
}

DataFile DataFile::open_copy(const std::string& path, uint64_t start, const std::string& name) {
  DataFile file;
  file.path_ = name;
  file.copy_ = true;
  struct stat status {};
  file.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.descriptor_ < 0 || ::fstat(file.descriptor_, &status) != 0) {
    cannot_open(path, errno);
  }
  if (static_cast<uint64_t>(status.st_size) <= start) {
    throw Error(ErrorKind::Data,
                {.where = kDataFileWhere, .what = name + ": there is nothing in the data file"});
  }
  file.start_ = start;
  file.size_ = static_cast<uint64_t>(status.st_size) - start;
  file.modified_ns_ = modified(status);
  return file;
}

DataFile::DataFile(DataFile&& other) noexcept {
  *this = std::move(other);
}

DataFile& DataFile::operator=(DataFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(start_, other.start_);
  std::swap(size_, other.size_);
  std::swap(modified_ns_, other.modified_ns_);
  std::swap(copy_, other.copy_);
  return *this;
}

DataFile::~DataFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

void DataFile::check_unchanged(uint64_t offset) const {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    throw Error(
        ErrorKind::Io,
        {.where = kDataFileWhere,
         .what = fmt::format("{}: byte {} cannot be read: {}", path_, offset, reason(errno))});
  }
  const uint64_t size = static_cast<uint64_t>(status.st_size) - start_;
  if ((status.st_nlink > 0 || copy_) && size == size_ && modified(status) == modified_ns_) {
    return;
  }
  const std::string what = status.st_nlink == 0 ? "was removed"
                           : size < size_       ? fmt::format("was cut to {} bytes", size)
                                                : "was rewritten";
  // Io, not Data: on_bad_record: skip must not take it for a bad record.
  throw Error(
      ErrorKind::Io,
      {.where = kDataFileWhere,
       .what = fmt::format(
           "{}: the data file {} while in use, noticed when reading byte {}", path_, what, offset),
       .allowed = fmt::format("the {} bytes it had at the start of the run", size_),
       .hint = "put the file back and resume; examples are numbered by their place in it"});
}

void DataFile::read_into(uint64_t offset, char* bytes, uint64_t length) const {
  check_unchanged(offset);
  uint64_t done = 0;
  while (done < length) {
    const ssize_t got = ::pread(
        descriptor_, bytes + done, length - done, static_cast<off_t>(start_ + offset + done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      throw Error(ErrorKind::Io,
                  {.where = kDataFileWhere,
                   .what = fmt::format(
                       "{}: byte {} cannot be read: {}", path_, offset + done, reason(errno))});
    }
    if (got == 0) {
      check_unchanged(offset + done);
      throw Error(ErrorKind::Io,
                  {.where = kDataFileWhere,
                   .what = fmt::format("{}: the data file ends at byte {}", path_, offset + done),
                   .allowed = fmt::format("{} bytes", size_)});
    }
    done += static_cast<uint64_t>(got);
  }
}

std::string DataFile::read(uint64_t offset, uint64_t length) const {
  std::string bytes(length, '\0');
  read_into(offset, bytes.data(), length);
  return bytes;
}

std::string DataFile::fingerprint() const {
  const uint64_t head = std::min(size_, kEndBytes);
  const uint64_t tail = std::min(size_ - head, kEndBytes);
  storage::Hasher hasher;
  hasher.update(std::string_view(read(0, head)));
  hasher.update(std::string_view(read(size_ - tail, tail)));
  return fmt::format("{}:{}", size_, storage::to_hex(hasher.finish()));
}

}  // namespace kamerton::data
