// SPDX-License-Identifier: Apache-2.0
// Digests of files and byte strings, by libsodium.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace kamerton::storage {

/// Blake2b: BLAKE2b with 256 bits of output, RFC 7693. Sha256: FIPS 180-4.
/// Blake2b is the faster one here (see README); Sha256 is for figures that others publish.
enum class DigestKind { Blake2b, Sha256 };

using Digest = std::array<uint8_t, 32>;

/// "blake2b-256" or "sha256".
std::string_view name_of(DigestKind kind) noexcept;

/// Bytes in, digest out. Not thread-safe; one object a thread.
class Hasher {
 public:
  explicit Hasher(DigestKind kind = DigestKind::Blake2b);
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  /// Call once.
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest digest_of(std::span<const std::byte> bytes, DigestKind kind = DigestKind::Blake2b);
Digest digest_of(std::string_view text, DigestKind kind = DigestKind::Blake2b);

/// The digest of a file's bytes as they are now (read in order, not mapped). Errors as
/// MappedFile::open; an empty file is fine.
Digest digest_of_file(const std::filesystem::path& path, DigestKind kind = DigestKind::Blake2b);

/// A fast digest against damage (not against forgery), computed by several threads: BLAKE2b over
/// the file's length (8 bytes, little-endian) and, in order, a 16-byte Poly1305 of each of its
/// pieces of kTreePiece bytes, under the key BLAKE2b("kamerton tree digest, version 1"). The value
/// does not depend on the number of threads. Errors as above.
inline constexpr uint64_t kTreePiece = uint64_t{8} << 20;
Digest tree_digest_of_file(const std::filesystem::path& path, int num_threads);

/// 64 lower-case hexadecimal digits.
std::string to_hex(const Digest& digest);

/// "<name>:<hex>", the form in which files record a digest.
std::string tagged(const Digest& digest, DigestKind kind = DigestKind::Blake2b);

}  // namespace kamerton::storage
