// SPDX-License-Identifier: Apache-2.0
// Where the oracle files of the text tests lie.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"

namespace kamerton::text {

/// The shared folder, or empty where there is none.
inline std::filesystem::path shared_dir() {
  const char* root = std::getenv("KAMERTON_SHARED");
  return root != nullptr && std::filesystem::exists(std::filesystem::path(root) / "fixtures") ? root
                                                                                              : "";
}

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline core::Json load_json(const std::filesystem::path& path) {
  return core::parse_json(slurp(path), path.filename().string());
}

}  // namespace kamerton::text

#define SKIP_WITHOUT_SHARED()                                                       \
  if (kamerton::text::shared_dir().empty()) {                                       \
    GTEST_SKIP() << "KAMERTON_SHARED does not name a folder with the oracle files"; \
  }
