// SPDX-License-Identifier: Apache-2.0
// Gaussian noise as a function of a secret key: the same on any number of ranks, and on a step that
// is run again.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kamerton/privacy/secret.h"

namespace kamerton::privacy {

/// Element i of a named stream is standard normal: half the sum of four Box-Muller values in double
/// from ChaCha20's bits, so that no single rounding shows which values a float cannot take (Holohan
/// and Braghin 2107.10138). Who knows the key can take the noise off: it stays at the site.
class NormalStream {
 public:
  NormalStream(const Secret& key, std::string_view purpose, uint64_t step, std::string_view name);

  /// values[i] += scale * element (first + i). Thread-safe.
  void add(uint64_t first, double scale, std::span<float> values) const;

 private:
  Secret key_;
};

}  // namespace kamerton::privacy
