// SPDX-License-Identifier: Apache-2.0
// The part of Python's pickle that describes tensors, read as data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/storage/dtype.h"

namespace kamerton::storage {

/// A tensor as the pickle describes it; nothing is checked against the storage's bytes yet.
struct PickledTensor {
  DType dtype = DType::F32;
  std::string storage_key;
  int64_t storage_elements = 0;
  int64_t first_element = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

using PickledTensors = std::vector<std::pair<std::string, PickledTensor>>;

/// The tensors of a pickled dictionary (or of its member "state_dict"), in its order. Memory and
/// time are bounded by a small multiple of the pickle. Throws ErrorKind::Data naming the opcode or
/// global that is not allowed.
PickledTensors read_pickle(std::span<const std::byte> pickle, const std::string& origin);

}  // namespace kamerton::storage
