// SPDX-License-Identifier: Apache-2.0
// Where each exchanged parameter lies in the one vector that travels.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::federation {

struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
};

/// The tensors one after the other, row-major, fp32. A vector that travels is `vectors` of these
/// side by side (SCAFFOLD: weights, then control variates).
class Layout {
 public:
  Layout() = default;
  /// ErrorKind::Data: no tensor, a name twice, a size that is negative or too large.
  Layout(std::vector<TensorSpec> tensors, int64_t vectors);

  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  int64_t vectors() const { return vectors_; }
  int64_t size() const { return size_; }              ///< elements of one vector
  int64_t total() const { return size_ * vectors_; }  ///< elements that travel
  /// First element of the tensor in a vector; -1 when it is not exchanged.
  int64_t offset(const std::string& name) const;
  static int64_t numel(const TensorSpec& tensor);

  core::Json to_json() const;
  /// Checked: at most a million tensors, 8 dimensions each, 2^40 elements in all. ErrorKind::Data.
  static Layout from_json(const core::Json& json, const std::string& origin);
  /// Of names, shapes and number of vectors.
  std::string digest() const;

 private:
  std::vector<TensorSpec> tensors_;
  std::vector<int64_t> offsets_;
  std::unordered_map<std::string, int64_t> by_name_;
  int64_t vectors_ = 1;
  int64_t size_ = 0;
};

}  // namespace kamerton::federation
