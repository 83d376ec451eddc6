// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/digest.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <sodium.h>

#include "kamerton/core/error.h"

#include "posix_error.h"

namespace kamerton::storage {
namespace {

constexpr char kDigestWhere[] = "storage.digest";
constexpr size_t kReadPiece = size_t{1} << 20;

void sodium_check(int code, const char* call) {
  if (code < 0) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kDigestWhere,
                       .what = std::string("libsodium's ") + call + " failed",
                       .got = std::to_string(code),
                       .allowed = "",
                       .hint = ""});
  }
}

const unsigned char* raw(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

/// Hands [offset, offset + length) of a file to `feed`, a piece at a time.
void read_range(int descriptor,
                const std::filesystem::path& path,
                uint64_t offset,
                uint64_t length,
                std::vector<std::byte>& buffer,
                const std::function<void(std::span<const std::byte>)>& feed) {
  while (length > 0) {
    const auto piece = static_cast<size_t>(std::min<uint64_t>(length, buffer.size()));
    if (const int error = read_fully(descriptor, buffer.data(), piece, offset); error != 0) {
      throw_read_error(kDigestWhere, path, error);
    }
    feed({buffer.data(), piece});
    offset += piece;
    length -= piece;
  }
}

using Leaf = std::array<uint8_t, crypto_onetimeauth_BYTES>;

/// Poly1305 under a key that everybody knows: it finds damage, not forgery.
class LeafHasher {
 public:
  LeafHasher() {
    static const Digest key = digest_of("kamerton tree digest, version 1");
    static_assert(sizeof(Digest) == crypto_onetimeauth_KEYBYTES);
    sodium_check(crypto_onetimeauth_init(&state_, key.data()), "onetimeauth_init");
  }
  void update(std::span<const std::byte> bytes) {
    sodium_check(crypto_onetimeauth_update(&state_, raw(bytes.data()), bytes.size()),
                 "onetimeauth_update");
  }
  Leaf finish() {
    Leaf leaf;
    sodium_check(crypto_onetimeauth_final(&state_, leaf.data()), "onetimeauth_final");
    return leaf;
  }

 private:
  crypto_onetimeauth_state state_;
};

}  // namespace

struct Hasher::State {
  DigestKind kind;
  crypto_generichash_state blake;
  crypto_hash_sha256_state sha;
};

std::string_view name_of(DigestKind kind) noexcept {
  return kind == DigestKind::Blake2b ? "blake2b-256" : "sha256";
}

Hasher::Hasher(DigestKind kind) : state_(std::make_unique<State>()) {
  sodium_check(sodium_init(), "sodium_init");
  state_->kind = kind;
  if (kind == DigestKind::Blake2b) {
    sodium_check(crypto_generichash_init(&state_->blake, nullptr, 0, sizeof(Digest)),
                 "generichash_init");
  } else {
    sodium_check(crypto_hash_sha256_init(&state_->sha), "sha256_init");
  }
}

Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(std::span<const std::byte> bytes) {
  if (state_->kind == DigestKind::Blake2b) {
    sodium_check(crypto_generichash_update(&state_->blake, raw(bytes.data()), bytes.size()),
                 "generichash_update");
  } else {
    sodium_check(crypto_hash_sha256_update(&state_->sha, raw(bytes.data()), bytes.size()),
                 "sha256_update");
  }
}

void Hasher::update(std::string_view text) {
  update(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

Digest Hasher::finish() {
  Digest digest;
  if (state_->kind == DigestKind::Blake2b) {
    sodium_check(crypto_generichash_final(&state_->blake, digest.data(), digest.size()),
                 "generichash_final");
  } else {
    sodium_check(crypto_hash_sha256_final(&state_->sha, digest.data()), "sha256_final");
  }
  return digest;
}

Digest digest_of(std::span<const std::byte> bytes, DigestKind kind) {
  Hasher hasher(kind);
  hasher.update(bytes);
  return hasher.finish();
}

Digest digest_of(std::string_view text, DigestKind kind) {
  return digest_of(std::as_bytes(std::span<const char>(text.data(), text.size())), kind);
}

Digest digest_of_file(const std::filesystem::path& path, DigestKind kind) {
  uint64_t size = 0;
  const Descriptor file = open_regular_file(kDigestWhere, path, size);
  std::vector<std::byte> buffer(kReadPiece);
  Hasher hasher(kind);
  read_range(file.get(), path, 0, size, buffer, [&](auto bytes) { hasher.update(bytes); });
  return hasher.finish();
}

Digest tree_digest_of_file(const std::filesystem::path& path, int num_threads) {
  uint64_t size = 0;
  const Descriptor file = open_regular_file(kDigestWhere, path, size);
  const uint64_t num_pieces = (size + kTreePiece - 1) / kTreePiece;
  std::vector<Leaf> leaves(num_pieces);
  std::atomic<uint64_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      std::vector<std::byte> buffer(kReadPiece);
      for (uint64_t piece = next++; piece < num_pieces; piece = next++) {
        LeafHasher hasher;
        const uint64_t begin = piece * kTreePiece;
        read_range(
            file.get(), path, begin, std::min(kTreePiece, size - begin), buffer, [&](auto bytes) {
              hasher.update(bytes);
            });
        leaves[piece] = hasher.finish();
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  };
  const auto useful =
      std::clamp<uint64_t>(num_pieces, 1, static_cast<uint64_t>(std::max(num_threads, 1)));
  std::vector<std::thread> helpers;
  for (uint64_t i = 1; i < useful; ++i) {
    helpers.emplace_back(work);
  }
  work();
  for (auto& helper : helpers) {
    helper.join();
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
  Hasher root;
  std::array<std::byte, 8> length;
  for (size_t i = 0; i < length.size(); ++i) {
    length[i] = static_cast<std::byte>(size >> (8 * i));
  }
  root.update(length);
  root.update(std::as_bytes(std::span<const Leaf>(leaves)));
  return root.finish();
}

std::string to_hex(const Digest& digest) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.size());
  for (const uint8_t byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

std::string tagged(const Digest& digest, DigestKind kind) {
  return std::string(name_of(kind)) + ":" + to_hex(digest);
}

}  // namespace kamerton::storage
