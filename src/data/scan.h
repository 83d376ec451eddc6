// SPDX-License-Identifier: Apache-2.0
// Finding where records lie in a file, in one pass and constant memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "data_file.h"

namespace kamerton::data {

enum class FileForm {
  Jsonl,       ///< a record a line
  JsonArray,   ///< the elements of one array
  Paragraphs,  ///< text between blank lines
  WholeText,   ///< the file is one document
  TextPieces,  ///< the file is one document, in pieces of at most 1 MiB
  Csv,         ///< a row is a record; the first names the columns
  Tsv,         ///< the same with tabs
};

inline bool is_plain_text(FileForm form) {
  return form == FileForm::Paragraphs || form == FileForm::WholeText ||
         form == FileForm::TextPieces;
}

/// Where a record lies. Written to index files as it is.
struct Entry {
  uint64_t offset = 0;
  uint32_t length = 0;  ///< bytes; kContinues is set when it goes on from the entry before
  uint32_t line = 0;    ///< from 1; the last representable one for all beyond
};
inline constexpr uint32_t kContinues = uint32_t{1} << 31;

enum class Fault : uint8_t { None, BadText, TooLong, Empty, Quotes, Columns };

/// Records that were left out of the index.
struct Faults {
  uint64_t count = 0;
  uint64_t first_line = 0;
  uint64_t first_byte = 0;  ///< within the record, from 1
  Fault first = Fault::None;
  uint32_t columns = 0;  ///< Fault::Columns: of the row, and of the header
  uint32_t header_columns = 0;
};

/// "a byte that is not UTF-8 text, or zero", ...
std::string describe_fault(const Faults& faults);

/// By the first bytes, then the name. ErrorKind::Data when neither tells.
FileForm detect_form(const DataFile& file,
                     const std::string& format,
                     const std::string& text_split);

/// Calls `emit` for each good record in order. Blank lines are none. A byte order mark at the start
/// is skipped. Throws ErrorKind::Data (file:line) when the outer structure of a JSON array is
/// broken.
Faults scan(const DataFile& file,
            FileForm form,
            uint64_t max_record_bytes,
            const std::function<void(const Entry&)>& emit);

}  // namespace kamerton::data
