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

/// `status` is the open file's.
std::shared_ptr<Descriptor> open_descriptor(const std::string& path, struct stat& status) {
  const int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (number < 0) {
    cannot_open(path, errno);
  }
  auto open = std::make_shared<Descriptor>(number);
  if (::fstat(number, &status) != 0) {
    cannot_open(path, errno);
  }
  check_kind(path, status);  // it may be another file by now
  return open;
}

}  // namespace

DataFile::DataFile(const std::string& path, const std::string& name)
    : path_(name), member_(std::make_unique<DescriptorPool::Member>()) {
  struct stat status {};
  auto open = open_descriptor(path, status);
  size_ = static_cast<uint64_t>(status.st_size);
  modified_ns_ = modified(status);
  member_->path = path;
  member_->device = status.st_dev;
  member_->inode = status.st_ino;
  DescriptorPool::shared().add(*member_, std::move(open));
}

DataFile DataFile::open(const std::string& path) {
  struct stat status {};
  // Asked by name first: opening a pipe would wait for a writer.
  if (::stat(path.c_str(), &status) != 0) {
    cannot_open(path, errno);
  }
  check_kind(path, status);
  return {path, path};
}

DataFile DataFile::open_copy(const std::string& path, uint64_t start, const std::string& name) {
  DataFile file(path, name);
  if (file.size_ <= start) {
    throw Error(ErrorKind::Data,
                {.where = kDataFileWhere, .what = name + ": there is nothing in the data file"});
  }
  file.start_ = start;
  file.size_ -= start;
  file.copy_ = true;
  return file;
}

DataFile& DataFile::operator=(DataFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(member_, other.member_);
  std::swap(start_, other.start_);
  std::swap(size_, other.size_);
  std::swap(modified_ns_, other.modified_ns_);
  std::swap(copy_, other.copy_);
  return *this;
}

DataFile::~DataFile() {
  if (member_) {
    DescriptorPool::shared().remove(*member_);
  }
}

void DataFile::changed(const std::string& how, uint64_t offset) const {
  // Io, not Data: on_bad_record: skip must not take it for a bad record.
  throw Error(
      ErrorKind::Io,
      {.where = kDataFileWhere,
       .what = fmt::format(
           "{}: the data file {} while in use, noticed when reading byte {}", path_, how, offset),
       .allowed = fmt::format("the {} bytes it had at the start of the run", size_),
       .hint = "put the file back and resume; examples are numbered by their place in it"});
}

void DataFile::unreadable(uint64_t offset, int code) const {
  throw Error(ErrorKind::Io,
              {.where = kDataFileWhere,
               .what = fmt::format("{}: byte {} cannot be read: {}", path_, offset, reason(code))});
}

std::shared_ptr<Descriptor> DataFile::descriptor(uint64_t offset) const {
  auto open = DescriptorPool::shared().use(*member_);
  if (!open) {
    const int code = errno;
    if (code == ENOENT || code == ENOTDIR) {
      changed("was removed", offset);
    }
    if (code == ESTALE) {
      changed("was rewritten", offset);
    }
    unreadable(offset, code);
  }
  return open;
}

void DataFile::check_unchanged(const Descriptor& descriptor, uint64_t offset) const {
  struct stat status {};
  if (::fstat(descriptor.number(), &status) != 0) {
    unreadable(offset, errno);
  }
  const uint64_t size = static_cast<uint64_t>(status.st_size) - start_;
  if (size == size_ && (copy_ || (status.st_nlink > 0 && modified(status) == modified_ns_))) {
    return;
  }
  changed(status.st_nlink == 0 ? "was removed"
          : size < size_       ? fmt::format("was cut to {} bytes", size)
                               : "was rewritten",
          offset);
}

void DataFile::read_into(uint64_t offset, char* bytes, uint64_t length) const {
  const auto open = descriptor(offset);
  check_unchanged(*open, offset);
  uint64_t done = 0;
  while (done < length) {
    const ssize_t got = ::pread(
        open->number(), bytes + done, length - done, static_cast<off_t>(start_ + offset + done));
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      unreadable(offset + done, errno);
    }
    if (got == 0) {
      check_unchanged(*open, offset + done);
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
