// SPDX-License-Identifier: Apache-2.0
// A weight in few bits.
#pragma once

#include <memory>

#include "kamerton/model/extension.h"

namespace kamerton::tuning {

/// The product and its backward over rows that a kind makes wide.
class PackedRows : public model::PackedWeight, public std::enable_shared_from_this<PackedRows> {
 public:
  PackedRows(int64_t out, int64_t in) : out_(out), in_(in) {}
  at::Tensor product(const at::Tensor& x_NI) const override;
  at::Tensor whole() const override { return rows(0, out_); }

  /// weight [out, in] fp32.
  virtual void pack(const at::Tensor& weight_OI) = 0;
  /// Rows [first, first + count) of it, fp32.
  virtual at::Tensor rows(int64_t first, int64_t count) const = 0;

  int64_t out() const { return out_; }
  int64_t rows_at_once() const;

 protected:
  int64_t out_;
  int64_t in_;
};

/// NF4: 4 bits a value in blocks of 64 along the flattened weight, the first value in the high half
/// of a byte; a block's largest magnitude in 8 bits (dynamic map, blocks of 256, after their mean).
class Nf4Weight final : public PackedRows {
 public:
  static constexpr int64_t kBlock = 64;
  static constexpr int64_t kScaleBlock = 256;

  Nf4Weight(int64_t out, int64_t in) : PackedRows(out, in) {}
  void pack(const at::Tensor& weight_OI) override;
  at::Tensor rows(int64_t first, int64_t count) const override;
  int64_t bytes() const override;

  const at::Tensor& codes() const { return codes_; }    ///< uint8 [ceil(n / 2)]
  const at::Tensor& scales() const { return scales_; }  ///< uint8 [ceil(n / 64)]
  at::Tensor wide_scales(int64_t first, int64_t count) const;
  static const float* code_book();         ///< 16 values, ascending
  static const at::Tensor& dynamic_map();  ///< 256 values, ascending

 private:
  at::Tensor codes_, scales_, scale_sizes_;
  float mean_ = 0;
};

/// int8: a row is its largest magnitude / 127 times integers.
class Int8Weight final : public PackedRows {
 public:
  Int8Weight(int64_t out, int64_t in) : PackedRows(out, in) {}
  void pack(const at::Tensor& weight_OI) override;
  at::Tensor rows(int64_t first, int64_t count) const override;
  int64_t bytes() const override { return out_ * in_ + 4 * out_; }

 private:
  at::Tensor codes_, sizes_;  // int8 [O, I], fp32 [O]
};

}  // namespace kamerton::tuning
