// SPDX-License-Identifier: Apache-2.0
// A weight in few bits. Its bytes are a parameter like others, sharded and gathered with its unit.
#pragma once

#include <memory>
#include <string>

#include "kamerton/model/extension.h"

namespace kamerton::tuning {

/// The product and its backward over rows that a kind makes wide.
class PackedRows : public model::PackedWeight, public std::enable_shared_from_this<PackedRows> {
 public:
  at::Tensor product(const at::Tensor& x_NI) const override;
  at::Tensor whole() const override { return rows(0, out_); }
  int64_t bytes() const override { return parameter_->numel(); }

  /// The bytes (uint8 [bytes()]) of a weight [out, in].
  virtual at::Tensor packed(const at::Tensor& weight_OI) const = 0;
  /// Rows [first, first + count) of it, fp32, from the parameter's value.
  virtual at::Tensor rows(int64_t first, int64_t count) const = 0;

  /// Not placed at first.
  const tensor::ParameterPtr& parameter() const { return parameter_; }
  int64_t out() const { return out_; }
  int64_t rows_at_once() const;

 protected:
  PackedRows(std::string name, int64_t out, int64_t in, int64_t bytes);

  int64_t out_;
  int64_t in_;
  tensor::ParameterPtr parameter_;
};

/// NF4: 4 bits a value in blocks of 64 along the flattened weight, the first value in the high half
/// of a byte; a block's largest magnitude in 8 bits (dynamic map, blocks of 256, after their mean).
/// Bytes: sizes of the scales' blocks and their mean (fp32), scales, codes.
class Nf4Weight final : public PackedRows {
 public:
  static constexpr int64_t kBlock = 64;
  static constexpr int64_t kScaleBlock = 256;

  Nf4Weight(std::string name, int64_t out, int64_t in);
  at::Tensor packed(const at::Tensor& weight_OI) const override;
  at::Tensor rows(int64_t first, int64_t count) const override;

  at::Tensor codes() const;   ///< uint8 [ceil(n / 2)]
  at::Tensor scales() const;  ///< uint8 [ceil(n / 64)]
  at::Tensor wide_scales(int64_t first, int64_t count) const;
  static const float* code_book();         ///< 16 values, ascending
  static const at::Tensor& dynamic_map();  ///< 256 values, ascending

 private:
  int64_t blocks_, scale_blocks_;
};

/// int8: a row is its largest magnitude / 127 times integers. Bytes: magnitudes (fp32), integers.
class Int8Weight final : public PackedRows {
 public:
  Int8Weight(std::string name, int64_t out, int64_t in)
      : PackedRows(std::move(name), out, in, out * in + 4 * out) {}
  at::Tensor packed(const at::Tensor& weight_OI) const override;
  at::Tensor rows(int64_t first, int64_t count) const override;
};

}  // namespace kamerton::tuning
