// SPDX-License-Identifier: Apache-2.0
// The serial HDF5 library behind a small checked face: files of one-dimensional datasets,
// attributes, virtual datasets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/storage/dtype.h"

namespace kamerton::storage {

/// A box of a virtual dataset and where its elements come from. The box is `count` at `start` in
/// the dataset's shape, in row-major order; they are `product(count)` consecutive elements from
/// `source_offset` on.
struct VirtualPart {
  std::string file;     ///< relative to the folder of the virtual dataset's file
  std::string dataset;  ///< one-dimensional
  int64_t source_length = 0;
  int64_t source_offset = 0;
  std::vector<int64_t> start;
  std::vector<int64_t> count;
};

/// An HDF5 file, open for writing (create) or for reading (open). Same calls, same bytes: no times
/// are recorded, metadata carries checksums (format of 1.8 or later), HDF5's own locks and plug-ins
/// are off. Names may hold '/': each part but the last is a group. One thread a file; a
/// process-wide mutex guards the library. Errors: ErrorKind::Io naming file, dataset and HDF5's own
/// reason; Data when a name or type is not what it should be. After an error do not use the object
/// again; destroy it and unlink the file. Call close(): the destructor closes too but must swallow
/// errors. Only open files whose digest was checked before.
class Hdf5File {
 public:
  static Hdf5File create(const std::filesystem::path& path);
  static Hdf5File open(const std::filesystem::path& path);

  Hdf5File(Hdf5File&& other) noexcept;
  Hdf5File& operator=(Hdf5File&& other) noexcept;
  Hdf5File(const Hdf5File&) = delete;
  Hdf5File& operator=(const Hdf5File&) = delete;
  ~Hdf5File();

  /// A contiguous dataset of `length` elements, space reserved at once.
  void create_dataset(const std::string& name, DType dtype, int64_t length);
  /// A dataset whose elements lie in other files. Boxes must not overlap; what no box covers reads
  /// as zero.
  void create_virtual_dataset(const std::string& name,
                              DType dtype,
                              const std::vector<int64_t>& shape,
                              const std::vector<VirtualPart>& parts);

  /// Elements [offset, offset + count). The dataset's type and length must be as given at creation
  /// (checked on reading).
  void write(const std::string& name, DType dtype, int64_t offset, int64_t count, const void* data);
  void read(const std::string& name, DType dtype, int64_t offset, int64_t count, void* data);
  int64_t length(const std::string& name);
  /// Where a contiguous dataset of this type begins in the file, bytes; 0 when it is empty.
  /// ErrorKind::Data when it is stored in another way or type than we write.
  int64_t data_offset(const std::string& name, DType dtype);

  /// An attribute of a dataset, or of the file for the empty name.
  void set_attribute(const std::string& object, const std::string& key, std::string_view text);
  void set_attribute(const std::string& object,
                     const std::string& key,
                     const std::vector<int64_t>& values);
  std::string text_attribute(const std::string& object, const std::string& key);
  std::vector<int64_t> integer_attribute(const std::string& object, const std::string& key);

  /// Closes what is open, checking every return code.
  void close();

 private:
  Hdf5File() = default;
  int64_t dataset(const std::string& name);
  void close_quietly() noexcept;

  std::filesystem::path path_;
  int64_t file_ = -1;
  std::map<std::string, int64_t> datasets_;
};

}  // namespace kamerton::storage
