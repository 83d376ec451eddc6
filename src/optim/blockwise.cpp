// SPDX-License-Identifier: Apache-2.0
#include "blockwise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>

namespace kamerton::optim {

namespace {

constexpr int kExponents = 7;

/// Middles of `count` equal parts of [0.1, 1], times 10^(i - 6), in torch's own float32 arithmetic.
void append_decade(std::vector<float>& values, int i, int count, bool with_sign) {
  const at::Tensor edges = at::linspace(0.1, 1.0, count + 1, at::kFloat);
  const at::Tensor middles = (edges.narrow(0, 0, count) + edges.narrow(0, 1, count)) / 2.0 *
                             std::pow(10.0, i - (kExponents - 1));
  for (int k = 0; k < count; ++k) {
    const float value = middles.const_data_ptr<float>()[k];
    values.push_back(value);
    if (with_sign) {
      values.push_back(-value);
    }
  }
}

}  // namespace

DynamicCode::DynamicCode(bool with_sign) {
  std::vector<float> values;
  for (int i = 0; i < kExponents; ++i) {
    append_decade(values, i, with_sign ? 1 << i : 2 << i, with_sign);
  }
  values.push_back(0.0F);
  values.push_back(1.0F);
  std::sort(values.begin(), values.end());
  std::copy(values.begin(), values.end(), values_.begin());
  for (size_t i = 0; i < middles_.size(); ++i) {
    middles_[i] = (values_[i] + values_[i + 1]) / 2.0F;
  }
  for (uint32_t upper = 0; upper < 65536; ++upper) {
    // Of a negative number the least float of the bin has all lower bits set.
    const uint32_t bits = upper << 16 | (upper >= 32768 ? 0xFFFFU : 0U);
    const auto least = std::bit_cast<float>(bits);
    const auto above = std::upper_bound(middles_.begin(), middles_.end(), least);
    first_[upper] = std::isnan(least) ? 0 : static_cast<uint8_t>(above - middles_.begin());
  }
}

uint8_t DynamicCode::code(float x) const {
  size_t code = first_[std::bit_cast<uint32_t>(x) >> 16];
  while (code < middles_.size() && x > middles_[code]) {
    ++code;
  }
  return static_cast<uint8_t>(code);
}

const DynamicCode& DynamicCode::with_sign() {
  static const DynamicCode code(true);
  return code;
}

const DynamicCode& DynamicCode::without_sign() {
  static const DynamicCode code(false);
  return code;
}

}  // namespace kamerton::optim
