// SPDX-License-Identifier: Apache-2.0
// A folder of HDF5 parts that several ranks fill: what is computed ahead and used by many runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/storage/hdf5_file.h"

namespace kamerton::objective {

/// Examples [first, first + count).
struct Part {
  int64_t first = 0;
  int64_t count = 0;
  std::string name;
};

/// `<root>/<kind>-<digest of the key>`: key.json, and part-N.h5 each with a note part-N.json that
/// holds its digest. A part without a note does not count, so a killed computation goes on where it
/// stopped. The cut into parts depends on the number of examples alone.
class PartFolder {
 public:
  PartFolder(const std::filesystem::path& root,
             const std::string& kind,
             std::string key,
             int64_t examples);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<Part>& parts() const { return parts_; }
  /// Every part but the last has so many examples.
  int64_t part_size() const { return parts_.empty() ? 0 : parts_.front().count; }
  std::filesystem::path file(const Part& part) const { return path_ / (part.name + ".h5"); }

  /// ErrorKind::Data when the folder says that it was made from something else.
  void check_key() const;
  /// Whether every part is there as it was written.
  bool whole() const;

  /// Makes what is missing, one part a rank at a time: all ranks call `compute` equally often, with
  /// nullopt where there is nothing left for them, then `write` with an open file. Collective.
  void fill(const comm::Group& world,
            const std::function<void(const std::optional<Part>&)>& compute,
            const std::function<void(storage::Hdf5File&)>& write) const;

 private:
  bool whole(const Part& part) const;
  std::vector<int64_t> missing(const comm::Group& world) const;
  void write_part(const Part& part, const std::function<void(storage::Hdf5File&)>& write) const;

  std::filesystem::path path_;
  std::string kind_;
  std::string key_;
  std::vector<Part> parts_;
};

}  // namespace kamerton::objective
