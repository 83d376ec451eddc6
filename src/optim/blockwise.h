// SPDX-License-Identifier: Apache-2.0
// Eight-bit codes with one scale a block, as bitsandbytes keeps optimizer state (arXiv 2110.02861).
#pragma once

#include <array>
#include <cstdint>

namespace kamerton::optim {

inline constexpr int64_t kCodeBlock = 256;

/// 256 values in [-1, 1], in order, finer near zero: bitsandbytes' create_dynamic_map.
class DynamicCode {
 public:
  explicit DynamicCode(bool with_sign);

  float value(uint8_t code) const { return values_[code]; }
  /// The nearest value's code; x in [-1, 1].
  uint8_t code(float x) const;

  static const DynamicCode& with_sign();
  static const DynamicCode& without_sign();

 private:
  std::array<float, 256> values_ = {};
  std::array<float, 255> middles_ = {};
  /// By the upper half of a float: the code of the least float that begins so.
  std::array<uint8_t, 65536> first_ = {};
};

}  // namespace kamerton::optim
