// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/secret.h"

#include <algorithm>

#include <sodium.h>

namespace kamerton::privacy {

void wipe(void* memory, size_t bytes) noexcept {
  sodium_memzero(memory, bytes);
}

Secret::Secret(std::span<const uint8_t, kBytes> bytes) {
  std::copy(bytes.begin(), bytes.end(), bytes_.begin());
}

bool Secret::equals(const Secret& other) const noexcept {
  return sodium_memcmp(bytes_.data(), other.bytes_.data(), kBytes) == 0;
}

}  // namespace kamerton::privacy
