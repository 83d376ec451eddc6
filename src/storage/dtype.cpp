// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/dtype.h"

#include <array>

namespace kamerton::storage {
namespace {

struct Row {
  DType dtype;
  std::string_view name;
  size_t size;
};

constexpr std::array<Row, 10> kTable = {{{DType::F32, "F32", 4},
                                         {DType::F16, "F16", 2},
                                         {DType::BF16, "BF16", 2},
                                         {DType::F64, "F64", 8},
                                         {DType::I64, "I64", 8},
                                         {DType::I32, "I32", 4},
                                         {DType::I16, "I16", 2},
                                         {DType::I8, "I8", 1},
                                         {DType::U8, "U8", 1},
                                         {DType::Bool, "BOOL", 1}}};

}  // namespace

size_t size_of(DType dtype) noexcept {
  return kTable[static_cast<size_t>(dtype)].size;
}

std::string_view name_of(DType dtype) noexcept {
  return kTable[static_cast<size_t>(dtype)].name;
}

std::optional<DType> dtype_from_name(std::string_view name) noexcept {
  for (const auto& row : kTable) {
    if (row.name == name) {
      return row.dtype;
    }
  }
  return std::nullopt;
}

std::optional<int64_t> checked_num_elements(std::span<const int64_t> shape) noexcept {
  int64_t product = 1;
  for (const int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(product, size, &product)) {
      return std::nullopt;
    }
  }
  return product;
}

}  // namespace kamerton::storage
