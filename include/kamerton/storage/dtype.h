// SPDX-License-Identifier: Apache-2.0
// The element types of files: names bytes, not tensors (no libtorch here).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kamerton::storage {

/// The values are never written to a file (files carry the names).
enum class DType : uint8_t { F32, F16, BF16, F64, I64, I32, I16, I8, U8, Bool };

/// Bytes of one element.
size_t size_of(DType dtype) noexcept;

/// The safetensors name, also used in checkpoints: "F32", "BF16", "BOOL", ...
std::string_view name_of(DType dtype) noexcept;

/// nullopt when the name is none of ours.
std::optional<DType> dtype_from_name(std::string_view name) noexcept;

/// The number of elements of a shape; nullopt when it is negative somewhere or does not fit 63
/// bits. [] has one element.
std::optional<int64_t> checked_num_elements(std::span<const int64_t> shape) noexcept;

}  // namespace kamerton::storage
