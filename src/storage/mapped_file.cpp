// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/mapped_file.h"

#include <utility>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kamerton/core/error.h"

#include "posix_error.h"

namespace kamerton::storage {
namespace {

constexpr char kMappedFileWhere[] = "storage.mapped_file";

int64_t modified_ns(const struct stat& status) {
  return static_cast<int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
}

int advice_of(Access access) {
  switch (access) {
    case Access::Sequential:
      return MADV_SEQUENTIAL;
    case Access::Random:
      return MADV_RANDOM;
    case Access::WillNeed:
      return MADV_WILLNEED;
    case Access::DontNeed:
      return MADV_DONTNEED;
  }
  return MADV_NORMAL;
}

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path, bool allow_empty) {
  MappedFile mapped;
  mapped.path_ = path;
  Descriptor file = open_regular_file(kMappedFileWhere, path, mapped.size_);
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) {
    throw_read_error(kMappedFileWhere, path, errno);
  }
  mapped.modified_ns_ = modified_ns(status);
  if (mapped.size_ == 0 && !allow_empty) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = kMappedFileWhere,
                       .what = "'" + path.string() + "' is empty",
                       .got = "0 bytes",
                       .allowed = "",
                       .hint = "fetching or writing the file again"});
  }
  if (mapped.size_ > 0) {
    void* address = ::mmap(nullptr, mapped.size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
    if (address == MAP_FAILED) {
      throw_read_error(kMappedFileWhere, path, errno);
    }
    mapped.data_ = static_cast<const std::byte*>(address);
  }
  mapped.descriptor_ = file.release();
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept {
  *this = std::move(other);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    close();
    path_ = std::move(other.path_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    descriptor_ = std::exchange(other.descriptor_, -1);
    modified_ns_ = other.modified_ns_;
  }
  return *this;
}

MappedFile::~MappedFile() {
  close();
}

void MappedFile::close() noexcept {
  if (data_ != nullptr) {
    ::munmap(const_cast<std::byte*>(data_), size_);
    data_ = nullptr;
  }
  keep_mapping_only();
}

void MappedFile::keep_mapping_only() noexcept {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
    descriptor_ = -1;
  }
}

std::span<const std::byte> MappedFile::span(uint64_t offset, uint64_t length) const {
  if (offset > size_ || length > size_ - offset) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = kMappedFileWhere,
                       .what = "'" + path_.string() + "' ends before the bytes that are wanted",
                       .got = "bytes " + std::to_string(offset) + " to " + std::to_string(offset) +
                              " + " + std::to_string(length),
                       .allowed = "at most " + std::to_string(size_),
                       .hint = "fetching or writing the file again"});
  }
  return bytes().subspan(offset, length);
}

void MappedFile::read(uint64_t offset, std::span<std::byte> into) const {
  span(offset, into.size());  // checks the range
  const int error = read_fully(descriptor_, into.data(), into.size(), offset);
  if (error == 0) {
    return;
  }
  struct stat status = {};
  if (::fstat(descriptor_, &status) == 0 && static_cast<uint64_t>(status.st_size) < size_) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = kMappedFileWhere,
                       .what = "'" + path_.string() + "' was cut short while it was in use",
                       .got = std::to_string(status.st_size) + " bytes now",
                       .allowed = std::to_string(size_) + " bytes, as when it was opened",
                       .hint = "fetching or writing the file again"});
  }
  throw_read_error(kMappedFileWhere, path_, error);
}

void MappedFile::advise(Access access) const {
  advise(access, 0, size_);
}

void MappedFile::advise(Access access, uint64_t offset, uint64_t length) const {
  if (data_ == nullptr || offset >= size_) {
    return;
  }
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  const uint64_t end = length < size_ - offset ? offset + length : size_;
  ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, advice_of(access));
}

void MappedFile::check_unchanged() const {
  struct stat status = {};
  if (descriptor_ < 0) {
    return;
  }
  if (::fstat(descriptor_, &status) != 0) {
    throw_read_error(kMappedFileWhere, path_, errno);
  }
  if (static_cast<uint64_t>(status.st_size) != size_ || modified_ns(status) != modified_ns_) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = kMappedFileWhere,
                       .what = "'" + path_.string() + "' was changed while it was in use",
                       .got = std::to_string(status.st_size) + " bytes now",
                       .allowed = std::to_string(size_) + " bytes, as when it was opened",
                       .hint = "starting again when nobody writes to it"});
  }
}

}  // namespace kamerton::storage
