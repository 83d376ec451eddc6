// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/layout.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"

namespace kamerton::federation {
namespace {

constexpr int64_t kMostElements = int64_t{1} << 40;
constexpr size_t kMostTensors = 1'000'000;

[[noreturn]] void refuse(const std::string& what, const std::string& got) {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "federation.layout", .what = what, .got = got});
}

}  // namespace

int64_t Layout::numel(const TensorSpec& tensor) {
  int64_t count = 1;
  for (const int64_t extent : tensor.shape) {
    if (extent < 0 || (extent > 0 && count > kMostElements / extent)) {
      refuse("a tensor's shape is not possible", tensor.name);
    }
    count *= extent;
  }
  return count;
}

Layout::Layout(std::vector<TensorSpec> tensors, int64_t vectors)
    : tensors_(std::move(tensors)), vectors_(vectors) {
  if (tensors_.empty() || tensors_.size() > kMostTensors || vectors < 1 || vectors > 2) {
    refuse("the exchanged tensors are not possible",
           fmt::format("{} tensors, {} vectors", tensors_.size(), vectors));
  }
  for (const TensorSpec& tensor : tensors_) {
    if (tensor.name.empty() || tensor.name.size() > 512 || tensor.shape.size() > 8 ||
        !by_name_.emplace(tensor.name, size_).second) {
      refuse("an exchanged tensor is not possible, or comes twice", tensor.name);
    }
    offsets_.push_back(size_);
    size_ += numel(tensor);
    if (size_ > kMostElements) {
      refuse("the exchanged tensors are too large", tensor.name);
    }
  }
  if (size_ == 0) {
    refuse("nothing is exchanged", "0 elements");
  }
}

int64_t Layout::offset(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? -1 : found->second;
}

core::Json Layout::to_json() const {
  core::Json list = core::Json::array();
  for (const TensorSpec& tensor : tensors_) {
    list.push_back({{"name", tensor.name}, {"shape", tensor.shape}});
  }
  return {{"vectors", vectors_}, {"tensors", std::move(list)}};
}

Layout Layout::from_json(const core::Json& json, const std::string& origin) {
  const core::Json* list = core::json_find(json, "tensors");
  if (list == nullptr || !list->is_array() || list->size() > kMostTensors) {
    refuse("no list of tensors in " + origin, "");
  }
  std::vector<TensorSpec> tensors;
  for (const core::Json& item : *list) {
    TensorSpec tensor{core::json_string(item, "name", origin), {}};
    const core::Json* shape = core::json_find(item, "shape");
    if (shape == nullptr || !shape->is_array() || shape->size() > 8) {
      refuse("a tensor without a shape in " + origin, tensor.name);
    }
    for (const core::Json& extent : *shape) {
      if (!extent.is_number_integer()) {
        refuse("a shape that is not of integers in " + origin, tensor.name);
      }
      tensor.shape.push_back(extent.get<int64_t>());
    }
    tensors.push_back(std::move(tensor));
  }
  return Layout(std::move(tensors), core::json_int(json, "vectors", origin));
}

std::string Layout::digest() const {
  return storage::to_hex(storage::digest_of(to_json().dump()));
}

}  // namespace kamerton::federation
