// SPDX-License-Identifier: Apache-2.0
// gzip and zstd streams, read from the start to the end in constant memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "data_file.h"

namespace kamerton::data {

enum class Compression { None, Gzip, Zstd };

/// By the first bytes. ErrorKind::Data when the name ends in .gz or .zst and the bytes are
/// another's.
Compression detect_compression(const DataFile& file);

/// "x.jsonl" of "x.jsonl.gz".
std::string without_compression_suffix(const std::string& path);

/// Calls `sink` with the text, piece by piece. Several gzip members or zstd frames one after the
/// other are one text. ErrorKind::Data naming the file and the byte of the compressed stream when
/// it is damaged or ends early, or when more than `max_bytes` of text come out.
void decompress(const DataFile& file,
                Compression compression,
                uint64_t max_bytes,
                const std::function<void(std::string_view)>& sink);

}  // namespace kamerton::data
