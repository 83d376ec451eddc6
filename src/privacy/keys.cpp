// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/keys.h"

#include <algorithm>

#include <sodium.h>

#include "kamerton/privacy/wire.h"

#include "faults.h"

namespace kamerton::privacy {
namespace {

constexpr char kKeysWhere[] = "privacy.keys";

const uint8_t* raw(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

/// What is signed, hashed or bound: no two (purpose, context) pairs give the same bytes.
std::string framed(std::string_view purpose, std::string_view context) {
  WireWriter writer;
  writer.text("kamerton");
  writer.text(purpose);
  writer.text(context);
  return writer.take();
}

/// libsodium's 64-byte form (seed, public key), wiped when done.
struct ExpandedKey {
  std::array<uint8_t, crypto_sign_SECRETKEYBYTES> secret;
  PublicKey key;
  explicit ExpandedKey(const Secret& seed) {
    start_sodium();
    library_check(crypto_sign_seed_keypair(key.data(), secret.data(), seed.data()) == 0,
                  "crypto_sign_seed_keypair");
  }
  ~ExpandedKey() { wipe(secret.data(), secret.size()); }
};

}  // namespace

SigningKey::SigningKey(const Secret& seed) : seed_(seed), public_(ExpandedKey(seed).key) {}

Signature SigningKey::sign(std::string_view purpose, std::string_view message) const {
  const ExpandedKey expanded(seed_);
  const std::string text = framed(purpose, message);
  Signature signature;
  library_check(crypto_sign_detached(
                    signature.data(), nullptr, raw(text), text.size(), expanded.secret.data()) == 0,
                "crypto_sign_detached");
  return signature;
}

bool verify(const PublicKey& key,
            std::string_view purpose,
            std::string_view message,
            const Signature& signature) {
  start_sodium();
  const std::string text = framed(purpose, message);
  return crypto_sign_verify_detached(signature.data(), raw(text), text.size(), key.data()) == 0;
}

AgreementKey::AgreementKey(const Secret& seed) : seed_(seed) {
  start_sodium();
  library_check(crypto_scalarmult_base(public_.data(), seed_.data()) == 0,
                "crypto_scalarmult_base");
}

Secret AgreementKey::agree(const PublicKey& peer,
                           std::string_view purpose,
                           std::string_view context) const {
  Secret shared;
  if (crypto_scalarmult(shared.data(), seed_.data(), peer.data()) != 0) {
    bad_data(kKeysWhere, "a public key is of small order: no secret comes of it");
  }
  WireWriter bound;
  bound.text(context);
  bound.raw(std::min(public_, peer));
  bound.raw(std::max(public_, peer));
  return derive(shared, purpose, bound.bytes());
}

Secret derive(const Secret& key, std::string_view purpose, std::string_view context) {
  start_sodium();
  const std::string text = framed(purpose, context);
  Secret result;
  library_check(
      crypto_generichash(
          result.data(), Secret::kBytes, raw(text), text.size(), key.data(), Secret::kBytes) == 0,
      "crypto_generichash");
  return result;
}

std::string seal(const Secret& key,
                 std::string_view text,
                 std::string_view bound,
                 RandomSource& random) {
  constexpr size_t kNonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
  static_assert(kNonce + crypto_aead_xchacha20poly1305_ietf_ABYTES == kSealBytes);
  start_sodium();
  std::string box(text.size() + kSealBytes, '\0');
  auto* bytes = reinterpret_cast<uint8_t*>(box.data());
  random.fill({bytes, kNonce});
  library_check(crypto_aead_xchacha20poly1305_ietf_encrypt(bytes + kNonce,
                                                           nullptr,
                                                           raw(text),
                                                           text.size(),
                                                           raw(bound),
                                                           bound.size(),
                                                           nullptr,
                                                           bytes,
                                                           key.data()) == 0,
                "crypto_aead_xchacha20poly1305_ietf_encrypt");
  return box;
}

std::string open(const Secret& key, std::string_view box, std::string_view bound) {
  constexpr size_t kNonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
  start_sodium();
  if (box.size() < kSealBytes) {
    refuse(kKeysWhere, "a sealed box is too short", std::to_string(box.size()) + " bytes");
  }
  std::string text(box.size() - kSealBytes, '\0');
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(reinterpret_cast<uint8_t*>(text.data()),
                                                 nullptr,
                                                 nullptr,
                                                 raw(box) + kNonce,
                                                 box.size() - kNonce,
                                                 raw(bound),
                                                 bound.size(),
                                                 raw(box),
                                                 key.data()) != 0) {
    refuse(kKeysWhere,
           "a sealed box does not open: made under another key, for another place, or changed");
  }
  return text;
}

}  // namespace kamerton::privacy
