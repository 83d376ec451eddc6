// SPDX-License-Identifier: Apache-2.0
// PyTorch's .bin and .pt files, read without Python: a pickle is a program, and this reads only the
// part of it that lists tensors. Nothing is ever executed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kamerton/storage/mapped_file.h"
#include "kamerton/storage/safetensors.h"

namespace kamerton::storage {

/// A state_dict saved by torch.save since 1.6: a zip archive of data.pkl and one record a storage,
/// all stored without compression. Understood: dictionaries, tuples, lists, texts, numbers and
/// tensors (torch._utils._rebuild_tensor_v2, _rebuild_parameter, collections.OrderedDict, torch's
/// storages). Every other global, opcode or form is refused by name (ErrorKind::Data): the file
/// formats before 1.6, compressed or encrypted records, big-endian data, tensors that are not
/// contiguous, types that we do not use, anything beyond the bounds of the file.
class PickledFile {
 public:
  static PickledFile open(const std::filesystem::path& path);
  /// The same checks on bytes in memory (tests).
  static std::vector<TensorEntry> parse(std::span<const std::byte> bytes,
                                        const std::string& origin);

  const std::filesystem::path& path() const { return file_.path(); }
  const MappedFile& file() const { return file_; }
  /// In the order of the dictionary. Two names may share bytes (tied weights).
  const std::vector<TensorEntry>& entries() const { return entries_; }
  /// nullptr when there is no such tensor.
  const TensorEntry* find(std::string_view name) const;
  std::span<const std::byte> bytes(const TensorEntry& entry) const;

 private:
  MappedFile file_;
  std::vector<TensorEntry> entries_;
  std::unordered_map<std::string, size_t> by_name_;
};

/// A folder with pytorch_model.bin, or pytorch_model.bin.index.json and its shards; or one file.
/// The same questions as SafetensorsModel answers.
class PickledModel {
 public:
  static PickledModel open(const std::filesystem::path& path);
  /// Whether the folder (or file) is one that open() would read.
  static bool is_one(const std::filesystem::path& path);

  const std::vector<std::string>& names() const { return names_; }
  bool contains(std::string_view name) const { return where_.count(std::string(name)) != 0; }
  /// Throws ErrorKind::Data naming the tensor when there is none.
  const TensorEntry& entry(std::string_view name) const;
  std::span<const std::byte> bytes(std::string_view name) const;
  /// Copies bytes [offset, offset + into.size()) of the tensor; see MappedFile::read.
  void read(std::string_view name, uint64_t offset, std::span<std::byte> into) const;
  const std::vector<PickledFile>& files() const { return files_; }

 private:
  struct Place {
    size_t file;
    const TensorEntry* entry;
  };
  void open_index(const std::filesystem::path& index);
  void add(size_t number, const TensorEntry& entry);
  const Place& place(std::string_view name) const;

  std::filesystem::path path_;
  std::vector<PickledFile> files_;
  std::vector<std::string> names_;
  std::unordered_map<std::string, Place> where_;
};

}  // namespace kamerton::storage
