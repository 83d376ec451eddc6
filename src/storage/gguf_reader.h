// SPDX-License-Identifier: Apache-2.0
// The structure of a GGUF file, checked: no read goes past the bytes, no count is believed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/storage/gguf.h"

namespace kamerton::storage {

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, const std::string& origin)
      : bytes_(bytes), origin_(origin) {}

  /// Throws ErrorKind::Data.
  void read();

  uint32_t version = 0;
  core::Json metadata;
  std::vector<GgufTensor> tensors;

 private:
  [[noreturn]] void reject(const std::string& what,
                           const std::string& got,
                           const std::string& allowed) const;
  uint64_t remaining() const { return bytes_.size() - at_; }
  void need(uint64_t size, std::string_view what) const;
  template <typename T>
  T number(std::string_view what);
  std::string text(std::string_view what, uint64_t max_bytes);
  void read_preamble(uint64_t& num_tensors, uint64_t& num_pairs);
  void read_metadata(uint64_t num_pairs);
  core::Json value(uint32_t type, const std::string& key, int depth);
  core::Json array(const std::string& key, int depth);
  GgufTensor tensor();
  void place_tensors();

  std::span<const std::byte> bytes_;
  const std::string& origin_;
  uint64_t at_ = 0;
  uint64_t num_values_ = 0;
};

}  // namespace kamerton::storage
