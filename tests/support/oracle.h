// SPDX-License-Identifier: Apache-2.0
// The reference libraries' numbers, where they are at hand (KAMERTON_SHARED); tests skip with a
// reason where not.
#pragma once

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/storage/safetensors.h"

namespace kamerton::test {

/// KAMERTON_SHARED/relative; an empty path when it does not exist.
inline std::filesystem::path oracle_path(const std::string& relative) {
  const char* root = std::getenv("KAMERTON_SHARED");
  const auto path =
      root == nullptr ? std::filesystem::path() : std::filesystem::path(root) / relative;
  return root != nullptr && std::filesystem::exists(path) ? path : std::filesystem::path();
}

#define KAMERTON_NEED_ORACLE(relative)                                                      \
  if (kamerton::test::oracle_path(relative).empty()) {                                      \
    GTEST_SKIP() << "reference data is absent: " << (relative) << " (set KAMERTON_SHARED)"; \
  }

inline core::Json oracle_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return core::parse_json(text.str(), path.string());
}

/// A tensor of a safetensors file, copied; undefined when there is none of this name. F32 and I64
/// only (all that fixtures use).
inline at::Tensor oracle_tensor(const storage::SafetensorsFile& file, const std::string& name) {
  const storage::TensorEntry* entry = file.find(name);
  if (entry == nullptr) {
    return {};
  }
  const bool integers = entry->dtype == storage::DType::I64;
  EXPECT_TRUE(integers || entry->dtype == storage::DType::F32) << name;
  at::Tensor tensor = at::empty(entry->shape, integers ? at::kLong : at::kFloat);
  std::memcpy(tensor.mutable_data_ptr(), file.bytes(*entry).data(), entry->size);
  return tensor;
}

/// The largest absolute difference.
inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0.0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace kamerton::test
