// SPDX-License-Identifier: Apache-2.0
// Data files in a form that can be read by position, whatever form they come in.
#pragma once

#include <string>
#include <vector>

#include "kamerton/data/config.h"

#include "data_file.h"
#include "scan.h"

namespace kamerton::data {

struct StagedFile {
  DataFile file;
  FileForm form;
  /// Of the file that the user named.
  std::string fingerprint;
  uint64_t bytes = 0;
};

/// Plain files as they are. What compressed, Parquet and Arrow files hold is written once to a file
/// in index_dir, line by line, in constant memory; a later run, and other processes of the node,
/// find it there. `columns`: those that Parquet and Arrow files are read for. Errors as
/// DataFile::open, decompress, convert_columnar; ErrorKind::Io when the disk is full.
StagedFile stage(const std::string& path,
                 const std::string& format,
                 const DataConfig& config,
                 const std::vector<std::string>& columns);

}  // namespace kamerton::data
