// SPDX-License-Identifier: Apache-2.0
// What a rank contributes to a checkpoint: byte spans with names, no libtorch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kamerton/storage/dtype.h"

namespace kamerton::checkpoint {

/// Elements [offset, offset + length) of the flattened (row-major) global tensor `name`, at `data`
/// in this process's memory. Names: parts separated by '/', like a path; '.' is an ordinary
/// character ("exp_avg.model.norm.weight").
struct Slice {
  std::string name;
  storage::DType dtype = storage::DType::F32;
  std::vector<int64_t> shape;  ///< of the whole tensor; [] is a scalar
  int64_t offset = 0;
  int64_t length = 0;
  void* data = nullptr;  ///< length * size_of(dtype) bytes; read by save(), written by load()
};

}  // namespace kamerton::checkpoint
