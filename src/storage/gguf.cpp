// SPDX-License-Identifier: Apache-2.0
#include "kamerton/storage/gguf.h"

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "gguf_reader.h"

namespace kamerton::storage {

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile opened;
  opened.file_ = MappedFile::open(path);
  opened.bytes_ = opened.file_.bytes();
  opened.read(path.string());
  return opened;
}

GgufFile GgufFile::parse(std::span<const std::byte> bytes, const std::string& origin) {
  GgufFile parsed;
  parsed.bytes_ = bytes;
  parsed.read(origin);
  return parsed;
}

void GgufFile::read(const std::string& origin) {
  origin_ = origin;
  GgufReader reader(bytes_, origin_);
  reader.read();
  version_ = reader.version;
  metadata_ = std::make_shared<const core::Json>(std::move(reader.metadata));
  tensors_ = std::move(reader.tensors);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].name.empty() || !by_name_.emplace(tensors_[i].name, i).second) {
      throw core::Error(core::ErrorKind::Data,
                        {.where = "storage.gguf",
                         .what = "'" + origin + "': a tensor's name is empty or occurs twice",
                         .got = "'" + tensors_[i].name + "'",
                         .allowed = "each name once",
                         .hint = ""});
    }
  }
}

const core::Json& GgufFile::metadata() const {
  return *metadata_;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> GgufFile::bytes(const GgufTensor& tensor) const {
  return bytes_.subspan(tensor.offset, tensor.size);
}

void GgufFile::read_rows(const GgufTensor& tensor,
                         int64_t first_row,
                         int64_t num_rows,
                         std::span<float> output) const {
  const int64_t length = tensor.row_length();
  const bool inside = first_row >= 0 && num_rows >= 0 && first_row <= tensor.num_rows() - num_rows;
  if (!inside || output.size() != static_cast<size_t>(num_rows * length)) {
    throw core::Error(
        core::ErrorKind::Internal,
        {.where = "storage.gguf",
         .what = "rows outside tensor '" + tensor.name + "', or a buffer of another size",
         .got = std::to_string(first_row) + " + " + std::to_string(num_rows) + " into " +
                std::to_string(output.size()) + " floats",
         .allowed = std::to_string(tensor.num_rows()) + " rows of " + std::to_string(length),
         .hint = ""});
  }
  const auto block = block_of(tensor.type);
  const auto row_bytes = static_cast<uint64_t>(length / block.num_elements) * block.size;
  const uint64_t first = static_cast<uint64_t>(first_row) * row_bytes;
  const uint64_t size = static_cast<uint64_t>(num_rows) * row_bytes;
  if (file_.size() == 0) {  // bytes in memory
    dequantise(tensor.type, bytes(tensor).subspan(first, size), output);
    return;
  }
  std::vector<std::byte> blocks(size);
  file_.read(tensor.offset + first, blocks);
  dequantise(tensor.type, blocks, output);
}

}  // namespace kamerton::storage
