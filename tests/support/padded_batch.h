// SPDX-License-Identifier: Apache-2.0
// A right-padded Hugging Face batch (input_ids, attention_mask, labels) as the flat batch that we
// train on.
#pragma once

#include <ATen/ATen.h>

#include "kamerton/data/example.h"

namespace kamerton::test {

/// ids, mask, labels [B, T]; labels are unshifted as in Hugging Face, -100 where ignored.
inline data::Batch flat_batch(const at::Tensor& ids_BT,
                              const at::Tensor& mask_BT,
                              const at::Tensor& labels_BT) {
  data::Batch batch;
  for (int64_t b = 0; b < ids_BT.size(0); ++b) {
    data::Example example;
    for (int64_t t = 0; t < ids_BT.size(1); ++t) {
      if (mask_BT[b][t].item<int64_t>() == 0) {
        continue;
      }
      const bool last = t + 1 == ids_BT.size(1) || mask_BT[b][t + 1].item<int64_t>() == 0;
      example.tokens.push_back(static_cast<int32_t>(ids_BT[b][t].item<int64_t>()));
      example.targets.push_back(last ? data::kNoTarget
                                     : static_cast<int32_t>(labels_BT[b][t + 1].item<int64_t>()));
    }
    batch.append(example, b);
  }
  return batch;
}

/// Rows of [B, T, ...] where the mask is 1, in the order of the flat batch.
inline at::Tensor unpadded(const at::Tensor& values_BT, const at::Tensor& mask_BT) {
  return values_BT.index({mask_BT.to(at::kBool)});
}

}  // namespace kamerton::test
