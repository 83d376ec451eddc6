// SPDX-License-Identifier: Apache-2.0
// A copy of data files without personal data.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/data/config.h"

namespace kamerton::data {

struct RedactReport {
  int64_t records = 0;
  int64_t changed = 0;
  /// E-mail addresses, telephone numbers, PESEL numbers, IBANs, card numbers.
  std::array<int64_t, 5> found = {};
  /// Counts by kind; nothing of the records.
  std::string text() const;
};

/// Writes every record of `paths` to `to` as a line of JSON, with [EMAIL], [PHONE], [PESEL], [IBAN]
/// or [CARD] in place of what `data verify` would report, in every string of a record and in whole
/// numbers that are PESEL or card numbers; a document of plain text becomes {"text": ...}. The file
/// appears when it is complete. ErrorKind::Data (file:line) for a record that cannot be read,
/// ErrorKind::Output when `to` exists or cannot be made, Io.
RedactReport redact(const std::vector<std::string>& paths,
                    const DataConfig& config,
                    const std::filesystem::path& to);

}  // namespace kamerton::data
