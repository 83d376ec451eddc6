// SPDX-License-Identifier: Apache-2.0
// One rank's HDF5 file: written from slices, read back in any ranges.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "kamerton/checkpoint/slice.h"

#include "payload/manifest.h"

namespace kamerton::checkpoint {

/// Refuses slices that cannot be: empty tensors, ranges beyond the tensor, missing memory; for
/// writing also two ranges of one rank that overlap and one name with two shapes. Internal naming
/// the tensor. Local.
void check_slices(const std::vector<Slice>& slices, bool for_writing);

int64_t total_bytes(const std::vector<Slice>& slices);

/// "rank-00000.h5"
std::string rank_file_name(int rank);

struct WriteTimes {
  double write_s = 0.0;
  double digest_s = 0.0;  ///< fsync and digest, which overlap
};

/// Where a file belongs; written into its attributes for people who open it alone.
struct RankPlace {
  int64_t step = 0;
  int rank = 0;
  int world_size = 1;
};

/// Writes <folder>/rank-0000K.h5 durably. On an error the file is removed. `slices` passed
/// check_slices().
RankPart write_rank_file(const std::filesystem::path& folder,
                         const RankPlace& place,
                         const std::vector<Slice>& slices,
                         int num_threads,
                         WriteTimes& times);

/// fsync and digest of a file that has just been written.
FileRecord seal_file(const std::filesystem::path& path, int num_threads);

/// Size first, then digest. Data when the file is missing or has another size, Io when the digest
/// differs.
void check_file(const std::filesystem::path& folder, const FileRecord& file, int num_threads);

/// Fills the slices from the files of a checkpoint. `checked`: names of files whose digest has been
/// compared; files that are not in it are checked before they are opened, and added. Slices fit the
/// manifest.
void read_slices(const std::filesystem::path& folder,
                 const Manifest& manifest,
                 const std::vector<Slice>& slices,
                 int num_threads,
                 std::set<std::string>& checked);

}  // namespace kamerton::checkpoint
