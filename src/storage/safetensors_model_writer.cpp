// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdio>
#include <set>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/safetensors.h"

namespace kamerton::storage {
namespace {

namespace fs = std::filesystem;

constexpr char kSafetensorsModelWriterIndex[] = "model.safetensors.index.json";

uint64_t bytes_of(const TensorDeclaration& tensor) {
  return static_cast<uint64_t>(checked_num_elements(tensor.shape).value_or(0)) *
         size_of(tensor.dtype);
}

std::string shard_name(size_t shard, size_t num_shards) {
  if (num_shards == 1) {
    return "model.safetensors";
  }
  std::array<char, 64> name;
  std::snprintf(
      name.data(), name.size(), "model-%05zu-of-%05zu.safetensors", shard + 1, num_shards);
  return name.data();
}

}  // namespace

struct SafetensorsModelWriter::State {
  fs::path folder;
  std::vector<TensorDeclaration> tensors;
  std::vector<SafetensorsWriter> shards;
  std::unordered_map<std::string, size_t> shard_of;

  std::string index_text() const {
    uint64_t total_bytes = 0;
    uint64_t total_parameters = 0;
    std::string map;
    for (const auto& tensor : tensors) {
      total_bytes += bytes_of(tensor);
      total_parameters += bytes_of(tensor) / size_of(tensor.dtype);
      map += (map.empty() ? "" : ",\n") + ("    " + core::Json(tensor.name).dump()) + ": \"" +
             shard_name(shard_of.at(tensor.name), shards.size()) + "\"";
    }
    return "{\n  \"metadata\": {\n    \"total_parameters\": " + std::to_string(total_parameters) +
           ",\n    \"total_size\": " + std::to_string(total_bytes) +
           "\n  },\n  \"weight_map\": {\n" + map + "\n  }\n}\n";
  }

  /// Tensor files of an earlier model would be loaded with, or instead of, the new ones.
  void remove_stale(FileSystem& files) const {
    std::set<std::string> current;
    for (size_t i = 0; i < shards.size(); ++i) {
      current.insert(shard_name(i, shards.size()));
    }
    for (const auto& name : files.list(folder)) {
      if (name.starts_with("model") && name.ends_with(".safetensors") && current.count(name) == 0) {
        files.remove_all(folder / name);
      }
    }
    if (shards.size() == 1) {
      files.remove_all(folder / kSafetensorsModelWriterIndex);
    }
    files.sync_directory(folder);
  }
};

SafetensorsModelWriter::SafetensorsModelWriter(const fs::path& folder,
                                               const std::vector<TensorDeclaration>& tensors,
                                               uint64_t max_shard_bytes,
                                               const TextPairs& metadata)
    : state_(std::make_unique<State>()) {
  posix_filesystem().make_directories(folder);
  state_->folder = folder;
  state_->tensors = tensors;
  std::vector<std::vector<TensorDeclaration>> parts(1);
  uint64_t filled = 0;
  for (const auto& tensor : tensors) {
    const uint64_t size = bytes_of(tensor);
    if (filled > 0 && size > max_shard_bytes - std::min(filled, max_shard_bytes)) {
      parts.emplace_back();
      filled = 0;
    }
    filled += size;
    parts.back().push_back(tensor);
    state_->shard_of.emplace(tensor.name, parts.size() - 1);
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    state_->shards.emplace_back(folder / shard_name(i, parts.size()), parts[i], metadata);
  }
}

SafetensorsModelWriter::~SafetensorsModelWriter() = default;

void SafetensorsModelWriter::write(std::string_view name,
                                   uint64_t byte_offset,
                                   std::span<const std::byte> bytes) {
  const auto found = state_->shard_of.find(std::string(name));
  if (found == state_->shard_of.end()) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "storage.safetensors_writer",
                       .what = "a tensor that was not declared",
                       .got = "'" + std::string(name) + "'",
                       .allowed = "",
                       .hint = ""});
  }
  state_->shards[found->second].write(name, byte_offset, bytes);
}

void SafetensorsModelWriter::finish() {
  auto& files = posix_filesystem();
  const bool sharded = state_->shards.size() > 1;
  if (sharded) {
    // Shards are replaced one after the other: without an index nobody can load a mixture of old
    // and new ones.
    files.remove_all(state_->folder / kSafetensorsModelWriterIndex);
    files.sync_directory(state_->folder);
  }
  for (auto& shard : state_->shards) {
    shard.finish();
  }
  if (sharded) {
    write_file_atomic(files, state_->folder / kSafetensorsModelWriterIndex, state_->index_text());
  }
  state_->remove_stale(files);
}

}  // namespace kamerton::storage
