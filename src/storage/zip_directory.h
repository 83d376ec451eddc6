// SPDX-License-Identifier: Apache-2.0
// The list of records of a zip archive whose records are stored as they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace kamerton::storage {

struct ZipRecord {
  uint64_t offset = 0;  ///< of its bytes in the file
  uint64_t size = 0;
};

/// By name. Bounds of every record are checked. Throws ErrorKind::Data: no zip archive, a damaged
/// directory, compressed or encrypted records, a name twice.
/// Format: APPNOTE 6.3, sections 4.3.7 - 4.3.16, with zip64.
std::map<std::string, ZipRecord, std::less<>> read_zip_directory(std::span<const std::byte> bytes,
                                                                 const std::string& origin);

}  // namespace kamerton::storage
