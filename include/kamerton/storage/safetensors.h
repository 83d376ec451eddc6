// SPDX-License-Identifier: Apache-2.0
// Hugging Face's tensor files, read with every rule of the format checked, written without holding
// a model in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "kamerton/storage/dtype.h"
#include "kamerton/storage/mapped_file.h"

namespace kamerton::storage {

using TextPairs = std::vector<std::pair<std::string, std::string>>;

/// What the header says of one tensor, after every check.
struct TensorEntry {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;  ///< [] is a scalar
  int64_t num_elements = 0;
  uint64_t offset = 0;  ///< bytes from the start of the file
  uint64_t size = 0;    ///< bytes, == num_elements * size_of(dtype)
};

/// The header alone.
struct SafetensorsHeader {
  std::vector<TensorEntry> entries;  ///< in the order of their bytes
  TextPairs metadata;                ///< __metadata__
};

/// Checks the first bytes of a file of file_size bytes (`head` holds at least the header, or the
/// whole shorter file). Throws ErrorKind::Data; the text carries "rule N" (see
/// src/storage/README.md), the tensor and, where sizes disagree, both. Allocates no more than a
/// small multiple of the header.
SafetensorsHeader parse_safetensors(std::span<const std::byte> head,
                                    uint64_t file_size,
                                    const std::string& origin);

/// One file, memory-mapped. Offsets need not be aligned to the element: copy bytes, do not cast
/// pointers.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<TensorEntry>& entries() const { return header_.entries; }
  const TextPairs& metadata() const { return header_.metadata; }
  /// nullptr when there is no such tensor.
  const TensorEntry* find(std::string_view name) const;
  /// Row-major little-endian bytes; valid while this object lives.
  std::span<const std::byte> bytes(const TensorEntry& entry) const;
  const MappedFile& file() const { return file_; }

 private:
  MappedFile file_;
  SafetensorsHeader header_;
  std::unordered_map<std::string_view, size_t> by_name_;
};

/// A model's tensors: one file, or a folder with model.safetensors or model.safetensors.index.json
/// and its shards. Pages are read when they are touched.
class SafetensorsModel {
 public:
  /// `path` is the folder or one .safetensors file. Errors (Data) also: no tensor file in the
  /// folder, an index that names a path outside the folder, a missing shard, a tensor that its
  /// shard does not have.
  static SafetensorsModel open(const std::filesystem::path& path);

  /// Whether the folder holds such a model, or the path is a .safetensors file.
  static bool is_one(const std::filesystem::path& path);

  /// All names: in the file's order, or in the index's.
  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return where_.count(std::string(name)) != 0; }
  /// Throws ErrorKind::Data naming the folder when there is no such tensor.
  const TensorEntry& entry(std::string_view name) const;
  std::span<const std::byte> bytes(std::string_view name) const;
  /// Copies bytes [offset, offset + into.size()) of the tensor; see MappedFile::read.
  void read(std::string_view name, uint64_t offset, std::span<std::byte> into) const;
  uint64_t total_bytes() const { return total_bytes_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  /// Tensors that a shard holds and the index does not list (readers ignore them).
  const std::vector<std::string>& unlisted() const { return unlisted_; }

 private:
  struct Place {
    size_t file;
    size_t entry;
  };
  void open_single(const std::filesystem::path& file);
  void open_index(const std::filesystem::path& index);
  const Place& place(std::string_view name) const;

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::vector<std::string> names_;
  std::vector<std::string> unlisted_;
  std::unordered_map<std::string, Place> where_;
  uint64_t total_bytes_ = 0;
};

/// A tensor that a writer will be given.
struct TensorDeclaration {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
};

/// Writes one file. The header comes from the declarations; then bytes in any order and in ranges,
/// so nothing but the caller's range is in memory. The file appears at finish(): temporary file,
/// fsync, rename, fsync of the folder, hence it may replace a file that is open for reading. Not
/// thread-safe.
class SafetensorsWriter {
 public:
  /// Reserves the disk space. Throws Output when the file cannot be created, Io (needed and free
  /// bytes) on a full disk, Internal for a bad declaration.
  SafetensorsWriter(const std::filesystem::path& path,
                    const std::vector<TensorDeclaration>& tensors,
                    const TextPairs& metadata = {{"format", "pt"}});
  /// Removes the temporary file when finish() was not reached.
  ~SafetensorsWriter();
  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;

  /// Bytes [byte_offset, byte_offset + bytes.size()) of the tensor; a range written twice is an
  /// error (Internal).
  void write(std::string_view name, uint64_t byte_offset, std::span<const std::byte> bytes);
  /// The whole tensor.
  void write(std::string_view name, std::span<const std::byte> bytes) { write(name, 0, bytes); }
  /// Throws Internal naming the first tensor that is not complete.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes a model folder: model.safetensors when it fits max_shard_bytes, else
/// model-0000i-of-0000n.safetensors and model.safetensors.index.json (written last). Tensors are
/// assigned to shards in the order of declaration. finish() removes older model*.safetensors files
/// that are not part of the new model. Same rules as SafetensorsWriter.
class SafetensorsModelWriter {
 public:
  static constexpr uint64_t kDefaultShardBytes = 50'000'000'000;  ///< transformers v5: "50GB"

  SafetensorsModelWriter(const std::filesystem::path& folder,
                         const std::vector<TensorDeclaration>& tensors,
                         uint64_t max_shard_bytes = kDefaultShardBytes,
                         const TextPairs& metadata = {{"format", "pt"}});
  ~SafetensorsModelWriter();

  void write(std::string_view name, uint64_t byte_offset, std::span<const std::byte> bytes);
  void write(std::string_view name, std::span<const std::byte> bytes) { write(name, 0, bytes); }
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::storage
