// SPDX-License-Identifier: Apache-2.0
#include "chacha.h"

#include <array>
#include <cstring>

#include <sodium.h>

#include "faults.h"

namespace kamerton::privacy {

void chacha_stream(const Secret& key, uint64_t lane, uint64_t block, std::span<uint8_t> out) {
  static_assert(crypto_stream_chacha20_KEYBYTES == Secret::kBytes);
  std::array<uint8_t, crypto_stream_chacha20_NONCEBYTES> nonce;
  for (size_t i = 0; i < nonce.size(); ++i) {
    nonce[i] = static_cast<uint8_t>(lane >> (8 * i));
  }
  if (out.empty()) {
    return;
  }
  std::memset(out.data(), 0, out.size());
  library_check(crypto_stream_chacha20_xor_ic(
                    out.data(), out.data(), out.size(), nonce.data(), block, key.data()) == 0,
                "crypto_stream_chacha20_xor_ic");
}

}  // namespace kamerton::privacy
