// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/safetensors.h"

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"

namespace kamerton::storage {
namespace {

namespace fs = std::filesystem;

constexpr char kSafetensorsWhere[] = "storage.safetensors";
constexpr char kSafetensorsSingle[] = "model.safetensors";
constexpr char kSafetensorsIndex[] = "model.safetensors.index.json";
constexpr size_t kSafetensorsMaxIndexBytes = size_t{256} << 20;

[[noreturn]] void bad_model(const std::string& what,
                            const std::string& got,
                            const std::string& allowed,
                            const std::string& hint = "") {
  throw core::Error(
      core::ErrorKind::Data,
      {.where = kSafetensorsWhere, .what = what, .got = got, .allowed = allowed, .hint = hint});
}

/// A shard's name from the index: a plain name, so that an index cannot reach files elsewhere.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos &&
         name.ends_with(".safetensors");
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const fs::path& path) {
  SafetensorsFile opened;
  opened.file_ = MappedFile::open(path);
  opened.header_ = parse_safetensors(opened.file_.bytes(), opened.file_.size(), path.string());
  opened.by_name_.reserve(opened.header_.entries.size());
  for (size_t i = 0; i < opened.header_.entries.size(); ++i) {
    // The view stays valid when this object moves: a vector's elements stay where they are.
    opened.by_name_.emplace(opened.header_.entries[i].name, i);
  }
  return opened;
}

const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_.entries[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorEntry& entry) const {
  return file_.span(entry.offset, entry.size);
}

SafetensorsModel SafetensorsModel::open(const fs::path& path) {
  SafetensorsModel model;
  model.path_ = path;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    model.open_single(path);
  } else if (fs::exists(path / kSafetensorsSingle, ignored)) {
    model.open_single(path / kSafetensorsSingle);
  } else if (fs::exists(path / kSafetensorsIndex, ignored)) {
    model.open_index(path / kSafetensorsIndex);
  } else {
    bad_model("'" + path.string() + "' holds no tensors",
              "",
              std::string(kSafetensorsSingle) + ", or " + kSafetensorsIndex + " and its shards",
              "kamerton import for a GGUF file");
  }
  for (const auto& name : model.names_) {
    model.total_bytes_ += model.entry(name).size;
  }
  return model;
}

bool SafetensorsModel::is_one(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    return fs::exists(path / kSafetensorsSingle, ignored) ||
           fs::exists(path / kSafetensorsIndex, ignored);
  }
  return path.extension() == ".safetensors";
}

void SafetensorsModel::open_single(const fs::path& file) {
  files_.push_back(SafetensorsFile::open(file));
  const auto& entries = files_[0].entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    names_.push_back(entries[i].name);
    where_.emplace(entries[i].name, Place{0, i});
  }
}

void SafetensorsModel::open_index(const fs::path& index) {
  const auto origin = index.string();
  const auto text = MappedFile::open(index);
  const auto json = core::parse_json(
      text.text(), origin, {.max_bytes = kSafetensorsMaxIndexBytes, .max_depth = 16});
  const auto* map = json.is_object() ? core::json_find(json, "weight_map") : nullptr;
  if (map == nullptr || !map->is_object()) {
    bad_model("'" + origin + "' has no weight_map", "", "an object: tensor name -> file name");
  }
  std::unordered_map<std::string, size_t> shards;
  for (const auto& [name, value] : map->items()) {
    const auto shard = value.is_string() ? value.get<std::string>() : std::string();
    if (!is_plain_name(shard)) {
      bad_model(
          "'" + origin + "' names a file that is not a plain shard name (tensor '" + name + "')",
          value.dump().substr(0, 200),
          "a name that ends in .safetensors, without a folder");
    }
    const auto [place, fresh] = shards.emplace(shard, files_.size());
    if (fresh) {
      files_.push_back(SafetensorsFile::open(index.parent_path() / shard));
    }
    const auto& file = files_[place->second];
    const auto* found = file.find(name);
    if (found == nullptr) {
      bad_model(
          "'" + file.path().string() + "' lacks tensor '" + name + "' that the index places there",
          "",
          "",
          "fetching index and shards again");
    }
    names_.push_back(name);
    where_.emplace(name, Place{place->second, static_cast<size_t>(found - file.entries().data())});
  }
  for (const auto& file : files_) {
    for (const auto& entry : file.entries()) {
      if (!contains(entry.name)) {
        unlisted_.push_back(entry.name);
      }
    }
  }
}

const SafetensorsModel::Place& SafetensorsModel::place(std::string_view name) const {
  const auto found = where_.find(std::string(name));
  if (found == where_.end()) {
    bad_model("'" + path_.string() + "' has no tensor '" + std::string(name) + "'",
              std::to_string(names_.size()) + " other tensors",
              "",
              "checking that the configuration belongs to these tensors");
  }
  return found->second;
}

const TensorEntry& SafetensorsModel::entry(std::string_view name) const {
  const auto& found = place(name);
  return files_[found.file].entries()[found.entry];
}

void SafetensorsModel::read(std::string_view name,
                            uint64_t offset,
                            std::span<std::byte> into) const {
  const auto& found = place(name);
  const auto& file = files_[found.file];
  const TensorEntry& wanted = file.entries()[found.entry];
  if (offset > wanted.size || into.size() > wanted.size - offset) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kSafetensorsWhere,
                       .what = "bytes beyond the end of tensor '" + wanted.name + "'",
                       .got = std::to_string(offset) + " + " + std::to_string(into.size()),
                       .allowed = std::to_string(wanted.size),
                       .hint = ""});
  }
  file.file().read(wanted.offset + offset, into);
}

std::span<const std::byte> SafetensorsModel::bytes(std::string_view name) const {
  const auto& found = place(name);
  const auto& file = files_[found.file];
  return file.bytes(file.entries()[found.entry]);
}

}  // namespace kamerton::storage
