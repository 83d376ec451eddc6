// SPDX-License-Identifier: Apache-2.0
// What FedProx and SCAFFOLD add to a site's gradients.
#pragma once

#include <map>
#include <utility>

#include <ATen/core/Tensor.h>

#include "kamerton/federation/layout.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/optim/sharded_parameters.h"

namespace kamerton::cli {

/// gradient += mu (w - x) (FedProx, arXiv 1812.06127) + c - c_k (SCAFFOLD, arXiv 1910.06378). x are
/// the weights at the first call, which the round began with. Lives as long as the round.
class SiteCorrection {
 public:
  /// control: c at elements from control_begin of `model`; own: c_k. Absent files count as zero;
  /// mu 0 and no scaffold: nothing is corrected. The layout and the files must outlive this.
  SiteCorrection(const federation::Layout& layout,
                 double mu,
                 bool scaffold,
                 const federation::RangeFile& model,
                 const federation::RangeFile& own);
  bool active() const { return mu_ > 0 || scaffold_; }
  void operator()(const tensor::Parameter& parameter,
                  int64_t offset,
                  const at::Tensor& values,
                  at::Tensor gradient);

 private:
  struct Piece {
    at::Tensor start;  ///< x
    at::Tensor drift;  ///< c - c_k
  };
  Piece make_piece(int64_t at, const at::Tensor& values) const;

  const federation::Layout& layout_;
  double mu_;
  bool scaffold_;
  const federation::RangeFile& model_;
  const federation::RangeFile& own_;
  std::map<std::pair<const tensor::Parameter*, int64_t>, Piece> pieces_;
};

}  // namespace kamerton::cli
