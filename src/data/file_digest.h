// SPDX-License-Identifier: Apache-2.0
// Digests of whole files, taken once a node.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace kamerton::data {

/// The tree digest of `include/kamerton/storage/digest.h` as hexadecimal digits. Of files from
/// `remembered_from` bytes on it is kept in `index_dir`, by path, size, time and a hash of both
/// ends: of the processes of a node one reads the file.
std::string file_digest(const std::string& path,
                        const std::optional<std::string>& index_dir,
                        int threads,
                        uint64_t remembered_from = uint64_t{16} << 20);

}  // namespace kamerton::data
