// SPDX-License-Identifier: Apache-2.0
// Rows that stand before the documents' own: a soft prompt's, or a prefix's keys and values.
#pragma once

#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/model/decoder.h"
#include "kamerton/tensor/attention.h"

namespace kamerton::model {

/// How N rows become M = N + (documents that begin) * P rows.
class LeadRows {
 public:
  /// count P rows before every document whose begins[d] is true.
  LeadRows(const std::vector<int64_t>& offsets, int64_t count, std::vector<bool> begins);

  const std::shared_ptr<const std::vector<int64_t>>& offsets() const { return offsets_; }
  /// rows [N, C], lead [P, C] -> [M, C]. Differentiable in both.
  at::Tensor insert(const at::Tensor& rows, const at::Tensor& lead) const;
  /// [M, C] -> the documents' own rows [N, C].
  at::Tensor own(const at::Tensor& rows) const { return rows.index_select(0, own_N_); }
  /// Positions of M rows: P rows from 0, then the document's own, P later where it begins.
  at::Tensor positions(const at::Tensor& positions_N) const;
  /// The documents' own positions, P later where they begin.
  at::Tensor own_positions(const at::Tensor& positions_N) const {
    return positions(positions_N).index_select(0, own_N_);
  }
  /// Makes the lead rows of a table turn nothing.
  void keep_lead_unrotated(tensor::Rotary& rotary) const;
  void to(at::Device device);

 private:
  int64_t count_;
  std::shared_ptr<const std::vector<int64_t>> offsets_;
  at::Tensor gather_M_;  // row of cat(lead, rows)
  at::Tensor own_N_;     // where the own rows are among M
  at::Tensor lead_L_;    // where the lead rows are among M
  at::Tensor shift_N_;   // P or 0
};

}  // namespace kamerton::model
