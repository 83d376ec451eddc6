// SPDX-License-Identifier: Apache-2.0
// Signatures (Ed25519), key agreement (X25519), key derivation (BLAKE2b), sealed boxes
// (XChaCha20-Poly1305), all by libsodium; every use is bound to a purpose, so that what was made
// for one place means nothing in another.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "kamerton/privacy/random_source.h"
#include "kamerton/privacy/secret.h"

namespace kamerton::privacy {

using PublicKey = std::array<uint8_t, 32>;
using Signature = std::array<uint8_t, 64>;

/// An Ed25519 key; a site's certificate carries its public half.
class SigningKey {
 public:
  explicit SigningKey(const Secret& seed);
  static SigningKey generate(RandomSource& random) { return SigningKey(random.secret()); }

  const PublicKey& public_key() const noexcept { return public_; }
  const Secret& seed() const noexcept { return seed_; }
  /// Over "kamerton", the purpose and the message, each with its length.
  Signature sign(std::string_view purpose, std::string_view message) const;

 private:
  Secret seed_;
  PublicKey public_ = {};
};

bool verify(const PublicKey& key,
            std::string_view purpose,
            std::string_view message,
            const Signature& signature);

/// An X25519 key (RFC 7748).
class AgreementKey {
 public:
  explicit AgreementKey(const Secret& seed);
  static AgreementKey generate(RandomSource& random) { return AgreementKey(random.secret()); }

  const PublicKey& public_key() const noexcept { return public_; }
  const Secret& seed() const noexcept { return seed_; }
  /// The key that both sides derive: BLAKE2b keyed with X25519(own, peer) over purpose, context and
  /// the two public keys in order. Throws ErrorKind::Data for a peer key of small order.
  Secret agree(const PublicKey& peer, std::string_view purpose, std::string_view context) const;

 private:
  Secret seed_;
  PublicKey public_ = {};
};

/// BLAKE2b-256 under `key` over purpose and context, each with its length.
Secret derive(const Secret& key, std::string_view purpose, std::string_view context);

/// XChaCha20-Poly1305 with a random nonce in front; `bound` is authenticated, not sent.
std::string seal(const Secret& key,
                 std::string_view text,
                 std::string_view bound,
                 RandomSource& random);
/// Throws ErrorKind::Permission when the box was made under another key or bound to something else,
/// or changed.
std::string open(const Secret& key, std::string_view box, std::string_view bound);
inline constexpr size_t kSealBytes = 24 + 16;

}  // namespace kamerton::privacy
