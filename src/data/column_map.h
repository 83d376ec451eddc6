// SPDX-License-Identifier: Apache-2.0
// Columns under the names that the layouts know.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/data/config.h"

#include "csv.h"
#include "layout.h"

namespace kamerton::data {

/// Immutable.
class ColumnNames {
 public:
  explicit ColumnNames(const ColumnMap& map) : given_(map.given()) {}

  bool empty() const { return given_.empty(); }
  /// Renames the columns of a record; a column that had the known name is dropped. ErrorKind::Data
  /// naming `origin` when a column is missing.
  core::Json apply(core::Json record, const std::string& origin) const;
  /// The layout that the given columns alone make; nullopt when they leave it open.
  std::optional<Layout> layout() const;
  /// Every column that a layout may read, under the files' names.
  std::vector<std::string> wanted() const;

 private:
  std::vector<std::pair<std::string, std::string>> given_;
};

/// A row of a CSV file as a record of text. `messages` and `conversations` that hold JSON text
/// become what it says (after `names`).
core::Json record_of_row(std::string_view row,
                         const CsvHeader& header,
                         const ColumnNames& names,
                         const std::string& origin);

}  // namespace kamerton::data
