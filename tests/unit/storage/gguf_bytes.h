// SPDX-License-Identifier: Apache-2.0
// Small GGUF files as strings.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace kamerton::storage {

class GgufBytes {
 public:
  template <typename T>
  GgufBytes& number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
    return *this;
  }
  GgufBytes& text(std::string_view value) {
    number<uint64_t>(value.size());
    bytes_ += value;
    return *this;
  }
  GgufBytes& raw(std::string_view value) {
    bytes_ += value;
    return *this;
  }
  GgufBytes& preamble(uint64_t num_tensors, uint64_t num_pairs, uint32_t version = 3) {
    return raw("GGUF")
        .number<uint32_t>(version)
        .number<uint64_t>(num_tensors)
        .number<uint64_t>(num_pairs);
  }
  /// Shape in the file's order, innermost first.
  GgufBytes& tensor(std::string_view name,
                    std::initializer_list<uint64_t> dims,
                    uint32_t type,
                    uint64_t offset) {
    text(name).number<uint32_t>(static_cast<uint32_t>(dims.size()));
    for (const auto dim : dims) {
      number<uint64_t>(dim);
    }
    return number<uint32_t>(type).number<uint64_t>(offset);
  }
  GgufBytes& align(size_t to = 32) {
    bytes_.resize((bytes_.size() + to - 1) / to * to);
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

/// Two tensors, all kinds of metadata.
inline std::string good_gguf() {
  GgufBytes file;
  file.preamble(2, 6);
  file.text("general.architecture").number<uint32_t>(8).text("llama");
  file.text("llama.block_count").number<uint32_t>(4).number<uint32_t>(30);
  file.text("eps").number<uint32_t>(6).number<float>(0.5F);
  file.text("flag").number<uint32_t>(7).number<uint8_t>(1);
  file.text("tokens").number<uint32_t>(9).number<uint32_t>(8).number<uint64_t>(2).text("a").text(
      "b");
  file.text("big").number<uint32_t>(11).number<int64_t>(-5);
  file.tensor("norm", {4}, 0, 0).tensor("w", {32, 2}, 8, 32).align();
  for (int i = 0; i < 4; ++i) {
    file.number<float>(static_cast<float>(i) + 0.5F);
  }
  file.align();
  for (int row = 0; row < 2; ++row) {
    file.number<uint16_t>(static_cast<uint16_t>(0x3c00 + row * 0x400));  // 1.0, 2.0
    for (int i = 0; i < 32; ++i) {
      file.number<int8_t>(static_cast<int8_t>(i - 16));
    }
  }
  return file.bytes();
}

}  // namespace kamerton::storage
