// SPDX-License-Identifier: Apache-2.0
#include "lead_rows.h"

#include <ATen/ATen.h>

namespace kamerton::model {

LeadRows::LeadRows(const std::vector<int64_t>& offsets, int64_t count, std::vector<bool> begins)
    : count_(count) {
  std::vector<int64_t> gather, own, lead, shift;
  auto expanded = std::make_shared<std::vector<int64_t>>(1, 0);
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    for (int64_t p = 0; begins[d] && p < count; ++p) {
      lead.push_back(static_cast<int64_t>(gather.size()));
      gather.push_back(p);
    }
    for (int64_t n = offsets[d]; n < offsets[d + 1]; ++n) {
      own.push_back(static_cast<int64_t>(gather.size()));
      gather.push_back(count + n);
      shift.push_back(begins[d] ? count : 0);
    }
    expanded->push_back(static_cast<int64_t>(gather.size()));
  }
  offsets_ = std::move(expanded);
  gather_M_ = at::tensor(gather, at::kLong);
  own_N_ = at::tensor(own, at::kLong);
  lead_L_ = at::tensor(lead, at::kLong);
  shift_N_ = at::tensor(shift, at::kLong);
}

void LeadRows::to(at::Device device) {
  for (at::Tensor* tensor : {&gather_M_, &own_N_, &lead_L_, &shift_N_}) {
    *tensor = tensor->to(device);
  }
}

at::Tensor LeadRows::insert(const at::Tensor& rows, const at::Tensor& lead) const {
  return at::cat({lead.to(rows.scalar_type()), rows}).index_select(0, gather_M_);
}

at::Tensor LeadRows::positions(const at::Tensor& positions_N) const {
  const at::Tensor own = positions_N.to(shift_N_.device()) + shift_N_;
  return at::cat({at::arange(count_, own.options()), own}).index_select(0, gather_M_);
}

void LeadRows::keep_lead_unrotated(tensor::Rotary& rotary) const {
  if (rotary.cos_NR.defined() && lead_L_.numel() > 0) {
    rotary.cos_NR.index_fill_(0, lead_L_, 1.0);
    rotary.sin_NR.index_fill_(0, lead_L_, 0.0);
  }
}

}  // namespace kamerton::model
