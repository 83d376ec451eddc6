// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/pickled_tensors.h"

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"

#include "pickle.h"
#include "zip_directory.h"

namespace kamerton::storage {
namespace {

namespace fs = std::filesystem;

constexpr char kPickledTensorsWhere[] = "storage.pickled_tensors";
constexpr char kPickledTensorsSingle[] = "pytorch_model.bin";
constexpr char kPickledTensorsIndex[] = "pytorch_model.bin.index.json";
constexpr std::string_view kPickle = "/data.pkl";
constexpr uint64_t kMaxPickleBytes = uint64_t{32} << 20;
constexpr size_t kPickledTensorsMaxIndexBytes = size_t{256} << 20;

[[noreturn]] void bad_file(const std::string& origin,
                           const std::string& what,
                           const std::string& got = "",
                           const std::string& allowed = "") {
  throw core::Error(core::ErrorKind::Data,
                    {.where = kPickledTensorsWhere,
                     .what = "'" + origin + "': " + what,
                     .got = got,
                     .allowed = allowed,
                     .hint = ""});
}

bool is_contiguous(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) {
      return false;
    }
    expected *= tensor.shape[i];
  }
  return true;
}

using Records = std::map<std::string, ZipRecord, std::less<>>;

/// Where the tensor's bytes lie in the file, after every check.
TensorEntry entry_of(const std::string& name,
                     const PickledTensor& tensor,
                     const Records& records,
                     const std::string& root,
                     const std::string& origin) {
  const std::string what = "tensor '" + name + "' ";
  const auto num_elements = checked_num_elements(tensor.shape);
  if (!num_elements || tensor.strides.size() != tensor.shape.size()) {
    bad_file(origin, what + "has a shape that cannot be");
  }
  if (*num_elements > 0 && !is_contiguous(tensor)) {
    bad_file(origin, what + "is a view that is not contiguous", "", "tensor.contiguous()");
  }
  const auto record = records.find(root + "/data/" + tensor.storage_key);
  if (record == records.end()) {
    bad_file(origin, what + "names a storage that the archive lacks", tensor.storage_key);
  }
  const auto width = static_cast<uint64_t>(size_of(tensor.dtype));
  const uint64_t available = record->second.size / width;
  const auto first = static_cast<uint64_t>(tensor.first_element);
  const auto count = static_cast<uint64_t>(*num_elements);
  if (static_cast<uint64_t>(tensor.storage_elements) > available || first > available ||
      count > available - first) {
    bad_file(origin,
             what + "reaches beyond its storage",
             std::to_string(first) + " + " + std::to_string(count),
             std::to_string(available) + " elements");
  }
  TensorEntry entry;
  entry.name = name;
  entry.dtype = tensor.dtype;
  entry.shape = tensor.shape;
  entry.num_elements = *num_elements;
  entry.offset = record->second.offset + first * width;
  entry.size = count * width;
  return entry;
}

/// A shard's name from the index: a plain name, so that an index cannot reach files elsewhere.
bool is_plain_pickle_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.find('/') == std::string::npos &&
         name.find('\\') == std::string::npos && name.find('\0') == std::string::npos &&
         (name.ends_with(".bin") || name.ends_with(".pt"));
}

}  // namespace

std::vector<TensorEntry> PickledFile::parse(std::span<const std::byte> bytes,
                                            const std::string& origin) {
  const Records records = read_zip_directory(bytes, origin);
  const Records::value_type* pickle = nullptr;
  for (const auto& record : records) {
    if (record.first.ends_with(kPickle)) {
      if (pickle != nullptr) {
        bad_file(origin, "the archive holds two pickles", record.first);
      }
      pickle = &record;
    }
  }
  if (pickle == nullptr || pickle->second.size > kMaxPickleBytes) {
    bad_file(origin,
             "the archive holds no usable data.pkl",
             pickle == nullptr ? "none" : std::to_string(pickle->second.size) + " bytes",
             "at most " + std::to_string(kMaxPickleBytes) + " bytes");
  }
  const std::string root = pickle->first.substr(0, pickle->first.size() - kPickle.size());
  if (const auto order = records.find(root + "/byteorder"); order != records.end()) {
    const auto text = bytes.subspan(order->second.offset, order->second.size);
    if (std::string_view(reinterpret_cast<const char*>(text.data()), text.size()) != "little") {
      bad_file(origin, "its numbers are not little-endian");
    }
  }
  std::vector<TensorEntry> entries;
  for (const auto& [name, tensor] :
       read_pickle(bytes.subspan(pickle->second.offset, pickle->second.size), origin)) {
    entries.push_back(entry_of(name, tensor, records, root, origin));
  }
  return entries;
}

PickledFile PickledFile::open(const fs::path& path) {
  PickledFile opened;
  opened.file_ = MappedFile::open(path);
  opened.entries_ = parse(opened.file_.bytes(), path.string());
  for (size_t i = 0; i < opened.entries_.size(); ++i) {
    if (!opened.by_name_.emplace(opened.entries_[i].name, i).second) {
      bad_file(path.string(), "a tensor occurs twice", opened.entries_[i].name);
    }
  }
  return opened;
}

const TensorEntry* PickledFile::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

std::span<const std::byte> PickledFile::bytes(const TensorEntry& entry) const {
  return file_.span(entry.offset, entry.size);
}

bool PickledModel::is_one(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    return fs::exists(path / kPickledTensorsSingle, ignored) ||
           fs::exists(path / kPickledTensorsIndex, ignored);
  }
  return path.extension() == ".bin" || path.extension() == ".pt" || path.extension() == ".pth";
}

PickledModel PickledModel::open(const fs::path& path) {
  PickledModel model;
  model.path_ = path;
  std::error_code ignored;
  const bool folder = fs::is_directory(path, ignored);
  if (folder && !fs::exists(path / kPickledTensorsSingle, ignored)) {
    model.open_index(path / kPickledTensorsIndex);
    return model;
  }
  model.files_.push_back(PickledFile::open(folder ? path / kPickledTensorsSingle : path));
  for (const TensorEntry& entry : model.files_[0].entries()) {
    model.add(0, entry);
  }
  return model;
}

/// Entries stay where they are when the list of files grows: a vector's elements keep their place
/// when the vector moves.
void PickledModel::add(size_t number, const TensorEntry& entry) {
  names_.push_back(entry.name);
  where_.emplace(entry.name, Place{number, &entry});
}

void PickledModel::open_index(const fs::path& index) {
  const std::string origin = index.string();
  const auto text = MappedFile::open(index);
  const auto json = core::parse_json(
      text.text(), origin, {.max_bytes = kPickledTensorsMaxIndexBytes, .max_depth = 16});
  const auto* map = json.is_object() ? core::json_find(json, "weight_map") : nullptr;
  if (map == nullptr || !map->is_object()) {
    bad_file(origin, "no weight_map", "", "an object: tensor name -> file name");
  }
  std::unordered_map<std::string, size_t> shards;
  for (const auto& [name, value] : map->items()) {
    const auto shard = value.is_string() ? value.get<std::string>() : std::string();
    if (!is_plain_pickle_name(shard)) {
      bad_file(origin,
               "tensor '" + name + "' lies in a file that is not a plain shard name",
               value.dump().substr(0, 200),
               "a name that ends in .bin, without a folder");
    }
    const auto [where, fresh] = shards.emplace(shard, files_.size());
    if (fresh) {
      files_.push_back(PickledFile::open(index.parent_path() / shard));
    }
    const TensorEntry* entry = files_[where->second].find(name);
    if (entry == nullptr) {
      bad_file(origin, "shard '" + shard + "' lacks tensor '" + name + "'");
    }
    add(where->second, *entry);
  }
}

const PickledModel::Place& PickledModel::place(std::string_view name) const {
  const auto found = where_.find(std::string(name));
  if (found == where_.end()) {
    bad_file(path_.string(), "no tensor '" + std::string(name) + "'");
  }
  return found->second;
}

const TensorEntry& PickledModel::entry(std::string_view name) const {
  return *place(name).entry;
}

void PickledModel::read(std::string_view name, uint64_t offset, std::span<std::byte> into) const {
  const Place& found = place(name);
  if (offset > found.entry->size || into.size() > found.entry->size - offset) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kPickledTensorsWhere,
                       .what = "bytes beyond the end of tensor '" + found.entry->name + "'",
                       .got = std::to_string(offset) + " + " + std::to_string(into.size()),
                       .allowed = std::to_string(found.entry->size),
                       .hint = ""});
  }
  files_[found.file].file().read(found.entry->offset + offset, into);
}

std::span<const std::byte> PickledModel::bytes(std::string_view name) const {
  const Place& found = place(name);
  return files_[found.file].bytes(*found.entry);
}

}  // namespace kamerton::storage
