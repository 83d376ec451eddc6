// SPDX-License-Identifier: Apache-2.0
// Bytes that are wiped when they are no longer needed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kamerton::privacy {

/// Overwrites memory in a way that a compiler does not remove.
void wipe(void* memory, size_t bytes) noexcept;

/// 32 secret bytes: a key, a seed, a scalar. Copies are allowed and wiped one by one.
class Secret {
 public:
  static constexpr size_t kBytes = 32;

  Secret() = default;
  explicit Secret(std::span<const uint8_t, kBytes> bytes);
  Secret(const Secret&) = default;
  Secret& operator=(const Secret&) = default;
  ~Secret() { wipe(bytes_.data(), bytes_.size()); }

  uint8_t* data() noexcept { return bytes_.data(); }
  const uint8_t* data() const noexcept { return bytes_.data(); }
  std::span<const uint8_t, kBytes> bytes() const noexcept { return bytes_; }

  /// In constant time.
  bool equals(const Secret& other) const noexcept;

 private:
  std::array<uint8_t, kBytes> bytes_ = {};
};

}  // namespace kamerton::privacy
