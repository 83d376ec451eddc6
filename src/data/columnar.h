// SPDX-License-Identifier: Apache-2.0
// Parquet and Arrow files as lines of JSON, by a library that is loaded when it is needed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data_file.h"

namespace kamerton::data {

enum class ColumnarForm { None, Parquet, ArrowFile, ArrowStream };

/// By the first bytes, or by data.format (parquet, arrow). ErrorKind::Data when the name ends in
/// .parquet, .arrow or .feather and the bytes are another's.
ColumnarForm detect_columnar(const DataFile& file, const std::string& format);

/// Calls `sink` with the rows, one JSON object a line, of the columns in `columns` that the file
/// has. ErrorKind::Data naming the file when it is damaged, none of the columns is there, or more
/// than `max_bytes` come out; ErrorKind::Config when the library is not there, with what to run.
void convert_columnar(const DataFile& file,
                      ColumnarForm form,
                      const std::vector<std::string>& columns,
                      uint64_t max_bytes,
                      const std::function<void(std::string_view)>& sink);

}  // namespace kamerton::data
