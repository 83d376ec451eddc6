// SPDX-License-Identifier: Apache-2.0
#include "payload/index_file.h"

#include <algorithm>
#include <unordered_map>

#include "kamerton/storage/hdf5_file.h"

namespace kamerton::checkpoint {

std::vector<Box> boxes_of(const std::vector<int64_t>& shape, int64_t offset, int64_t length) {
  const std::vector<int64_t> dims = shape.empty() ? std::vector<int64_t>{1} : shape;
  std::vector<int64_t> stride(dims.size(), 1);
  for (size_t i = dims.size() - 1; i > 0; --i) {
    stride[i - 1] = stride[i] * dims[i];
  }
  std::vector<Box> boxes;
  const int64_t end = offset + length;
  for (int64_t at = offset; at < end;) {
    // The outermost dim of which whole steps fit here.
    size_t dim = 0;
    while (at % stride[dim] != 0 || end - at < stride[dim]) {
      ++dim;
    }
    Box box{std::vector<int64_t>(dims.size()), dims};
    for (size_t i = 0; i < dims.size(); ++i) {
      box.start[i] = at / stride[i] % dims[i];
      if (i < dim) {
        box.count[i] = 1;
      }
    }
    box.count[dim] = std::min((end - at) / stride[dim], dims[dim] - box.start[dim]);
    at += box.count[dim] * stride[dim];
    boxes.push_back(std::move(box));
  }
  return boxes;
}

void write_index(const std::filesystem::path& path, const Manifest& manifest) {
  auto index = storage::Hdf5File::create(path);
  for (const auto& tensor : manifest.tensors) {
    std::unordered_map<int, int64_t> length_in_file;
    for (const auto& piece : tensor.pieces) {
      length_in_file[piece.file] += piece.length;
    }
    std::vector<storage::VirtualPart> parts;
    for (const auto& piece : tensor.pieces) {
      int64_t at = piece.at;
      for (auto& box : boxes_of(tensor.shape, piece.offset, piece.length)) {
        int64_t size = 1;
        for (const int64_t count : box.count) {
          size *= count;
        }
        parts.push_back({manifest.files[static_cast<size_t>(piece.file)].name,
                         tensor.name,
                         length_in_file[piece.file],
                         at,
                         std::move(box.start),
                         std::move(box.count)});
        at += size;
      }
    }
    const auto shape = tensor.shape.empty() ? std::vector<int64_t>{1} : tensor.shape;
    index.create_virtual_dataset(tensor.name, tensor.dtype, shape, parts);
  }
  index.close();
}

}  // namespace kamerton::checkpoint
