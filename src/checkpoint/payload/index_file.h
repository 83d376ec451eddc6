// SPDX-License-Identifier: Apache-2.0
// index.h5: every tensor in its own shape, as a virtual dataset over the ranks' files, for people
// with h5py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "payload/manifest.h"

namespace kamerton::checkpoint {

/// A box of a tensor.
struct Box {
  std::vector<int64_t> start;
  std::vector<int64_t> count;
  bool operator==(const Box&) const = default;
};

/// Cuts elements [offset, offset + length) of a row-major tensor into boxes, in the order of the
/// elements; at most 2 * dims - 1 of them. [] counts as [1].
std::vector<Box> boxes_of(const std::vector<int64_t>& shape, int64_t offset, int64_t length);

/// Writes the index beside the files that the manifest names.
void write_index(const std::filesystem::path& path, const Manifest& manifest);

}  // namespace kamerton::checkpoint
