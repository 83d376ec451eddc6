// SPDX-License-Identifier: Apache-2.0
// One place that turns errno into an Error that says what to do.
#pragma once

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>

namespace kamerton::storage {

/// Throws for a failed read: missing, folder -> Data; not allowed -> Permission; else Io.
[[noreturn]] void throw_read_error(const std::string& where,
                                   const std::filesystem::path& path,
                                   int error);

/// Throws for a failed creation or write: not possible there -> Output; full disk (with `needed`
/// and free bytes), failing device -> Io.
[[noreturn]] void throw_write_error(const std::string& where,
                                    const std::filesystem::path& path,
                                    int error,
                                    uint64_t needed = 0);

/// Owns a file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int value = -1) noexcept : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();

  int get() const noexcept { return value_; }
  explicit operator bool() const noexcept { return value_ >= 0; }
  int release() noexcept;
  /// Closes; returns errno (0: fine). Network file systems report late write errors here.
  int close() noexcept;

 private:
  int value_;
};

/// Opens for reading a regular file; fills in its size. Errors as throw_read_error.
Descriptor open_regular_file(const std::string& where,
                             const std::filesystem::path& path,
                             uint64_t& size);

/// pwrite of everything, resumed after interruption. Returns errno (0: fine).
int write_fully(int descriptor, const void* data, uint64_t size, uint64_t offset) noexcept;

/// pread of everything. Returns errno (0: fine); an early end of file is EIO.
int read_fully(int descriptor, void* data, uint64_t size, uint64_t offset) noexcept;

}  // namespace kamerton::storage
