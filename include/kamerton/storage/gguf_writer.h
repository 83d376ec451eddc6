// SPDX-License-Identifier: Apache-2.0
// GGUF files written tensor by tensor; format: gguf.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/storage/gguf.h"

namespace kamerton::storage {

/// Key-value pairs in the order of addition, as the file will hold them. Adding a key twice is an
/// error (Internal).
class GgufMetadata {
 public:
  void add_count(std::string_view key, uint32_t value);
  void add_real(std::string_view key, float value);
  void add_flag(std::string_view key, bool value);
  void add_text(std::string_view key, std::string_view value);
  void add_texts(std::string_view key, const std::vector<std::string>& values);
  void add_integers(std::string_view key, const std::vector<int32_t>& values);
  void add_reals(std::string_view key, const std::vector<float>& values);
  /// Everything of `other`, behind what is here.
  void append(const GgufMetadata& other);

  uint64_t size() const { return keys_.size(); }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, uint32_t type);

  std::set<std::string, std::less<>> keys_;
  std::string bytes_;
};

/// A tensor that a writer will be given; `shape` row-major, outermost first.
struct GgufDeclaration {
  std::string name;
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;
};

/// Writes one file, version 3, alignment 32. Metadata and tensor list come first, then each
/// tensor's bytes in order and in pieces of any size; tensors in any order. The file appears at
/// finish(): temporary file, fsync, rename, fsync of the folder. Not thread-safe.
class GgufWriter {
 public:
  /// Reserves the disk space. Throws Output when the file cannot be created, Io (needed and free
  /// bytes) on a full disk, Internal for a bad declaration (rows that are no whole blocks, a name
  /// twice, more than 4 dimensions).
  GgufWriter(const std::filesystem::path& path,
             const GgufMetadata& metadata,
             const std::vector<GgufDeclaration>& tensors);
  /// Removes the temporary file when finish() was not reached.
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  /// The next bytes of the tensor, in its declared type. Internal for bytes beyond its end.
  void append(std::string_view name, std::span<const std::byte> bytes);
  /// Throws Internal naming the first tensor that is not complete.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Floats to whole blocks of F32, F16, BF16 or Q8_0, rounded as ggml rounds; the sizes must fit as
/// in dequantise(). False when a finite value became infinite (too large for F16 or for a Q8_0
/// block's scale); Internal for other types.
bool quantise(GgmlType type, std::span<const float> values, std::span<std::byte> blocks);

}  // namespace kamerton::storage
