// SPDX-License-Identifier: Apache-2.0
// Files, folders and patterns as a sorted list of files.
#pragma once

#include <string>
#include <vector>

namespace kamerton::data {

/// Each entry is a file, a folder (all data files below it, hidden ones left out) or a pattern with
/// *, ?, [a-z] in any part and ** for folders of any depth. A path that exists is taken as it is,
/// whatever signs it holds. What one entry stands for is sorted byte by byte; a file that a folder
/// or pattern brings again is taken once. ErrorKind::Data when a folder or pattern brings nothing,
/// naming what is near. Other names are passed on: opening them says what is wrong.
std::vector<std::string> expand_files(const std::vector<std::string>& entries);

}  // namespace kamerton::data
