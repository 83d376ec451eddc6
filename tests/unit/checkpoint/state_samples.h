// SPDX-License-Identifier: Apache-2.0
// A small training state cut over ranks as the engine cuts it: one flat buffer, even shards,
// tensors cut anywhere.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "kamerton/checkpoint/slice.h"

namespace kamerton::checkpoint {

struct SampleTensor {
  std::string name;
  storage::DType dtype;
  std::vector<int64_t> shape;
};

inline std::vector<SampleTensor> sample_tensors() {
  using storage::DType;
  return {{"model.embed.weight", DType::F32, {17, 6}},
          {"model.norm.weight", DType::BF16, {5}},
          {"exp_avg/model.embed.weight", DType::F32, {17, 6}},
          {"conv", DType::F16, {2, 3, 4, 3}},
          {"count", DType::I64, {}},
          {"mask", DType::Bool, {9}}};
}

/// Element i of tensor t at a step, byte by byte.
inline unsigned char sample_byte(size_t tensor, int64_t step, uint64_t byte) {
  const auto value = static_cast<unsigned char>(tensor * 59 + static_cast<uint64_t>(step) * 31 +
                                                byte * 7 + (byte >> 8));
  return tensor == 5 ? value & 1U : value;  // booleans are 0 or 1
}

/// One rank's slices and the memory behind them.
class SampleShard {
 public:
  /// Each tensor is cut into `world` ranges whose borders are not multiples of anything.
  SampleShard(int rank, int world, int64_t step, bool fill) : step_(step) {
    const auto tensors = sample_tensors();
    for (size_t t = 0; t < tensors.size(); ++t) {
      const auto n = *storage::checked_num_elements(tensors[t].shape);
      const int64_t begin = n * rank / world;
      const int64_t end = n * (rank + 1) / world;
      memory_.emplace_back(static_cast<size_t>(end - begin) * size_of(tensors[t].dtype),
                           static_cast<unsigned char>(0xee));
      slices_.push_back({tensors[t].name,
                         tensors[t].dtype,
                         tensors[t].shape,
                         begin,
                         end - begin,
                         memory_.back().data()});
      for (size_t i = 0; fill && i < memory_.back().size(); ++i) {
        memory_.back()[i] = expected(t, i);
      }
    }
  }

  std::vector<Slice>& slices() { return slices_; }
  /// The number of bytes that are not what step `step` of the constructor demands.
  int64_t num_wrong() const {
    int64_t wrong = 0;
    for (size_t t = 0; t < memory_.size(); ++t) {
      for (size_t i = 0; i < memory_[t].size(); ++i) {
        wrong += memory_[t][i] != expected(t, i) ? 1 : 0;
      }
    }
    return wrong;
  }

 private:
  unsigned char expected(size_t tensor, size_t byte) const {
    const auto& slice = slices_[tensor];
    return sample_byte(
        tensor, step_, static_cast<uint64_t>(slice.offset) * size_of(slice.dtype) + byte);
  }

  int64_t step_;
  std::vector<Slice> slices_;
  std::vector<std::vector<unsigned char>> memory_;
};

}  // namespace kamerton::checkpoint
