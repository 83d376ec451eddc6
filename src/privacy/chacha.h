// SPDX-License-Identifier: Apache-2.0
// ChaCha20 with a 64-bit nonce and a 64-bit block counter, from any block.
#pragma once

#include <cstdint>
#include <span>

#include "kamerton/privacy/secret.h"

namespace kamerton::privacy {

inline constexpr size_t kChachaBlock = 64;

/// out: the stream's bytes from block number `block`.
void chacha_stream(const Secret& key, uint64_t lane, uint64_t block, std::span<uint8_t> out);

}  // namespace kamerton::privacy
