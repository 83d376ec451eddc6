// SPDX-License-Identifier: Apache-2.0
// Every return code of HDF5 goes through here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>
#include <utility>

#include <hdf5.h>

#include "kamerton/storage/dtype.h"

namespace kamerton::storage {

/// Where a call happened, for its message.
struct Hdf5Context {
  const std::filesystem::path& path;
  std::string object;   ///< a dataset, may be empty
  uint64_t needed = 0;  ///< bytes about to be written
  bool writing = false;
};

/// Returns a non-negative result; else throws with the library's innermost reason. A full disk
/// becomes the same error as elsewhere (Io, needed and free bytes).
int64_t hdf5_check(int64_t result, const char* call, const Hdf5Context& context);

/// Starts the library on first use (no exit handler, no plug-ins), silences its printing in this
/// thread, and holds the process-wide lock: other builds of the library than Debian's are not
/// thread-safe.
std::unique_lock<std::mutex> hdf5_library();

/// Owns an identifier of any kind; `close` is H5Dclose, H5Sclose, ...
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle(hid_t id, Close closer) noexcept : id_(id), close_(closer) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept
      : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  ~Hdf5Handle() {
    if (id_ >= 0) {
      close_(id_);
    }
  }
  hid_t get() const noexcept { return id_; }
  hid_t release() noexcept { return std::exchange(id_, -1); }
  /// Closes with its return code looked at.
  void close(const Hdf5Context& context) { hdf5_check(close_(release()), "close", context); }

 private:
  hid_t id_;
  Close close_;
};

/// The type of elements in files, little-endian; also the type in memory, so nothing is converted.
/// BF16 and F16 are HDF5 floats of 16 bits; Bool is the enumeration that h5py knows as bool.
Hdf5Handle hdf5_type(DType dtype, const Hdf5Context& context);

}  // namespace kamerton::storage
