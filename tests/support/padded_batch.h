// SPDX-License-Identifier: Apache-2.0
// A right-padded Hugging Face batch (input_ids, attention_mask, labels) as the flat batch that we
// train on.
#pragma once

#include <ATen/ATen.h>

#include "kamerton/data/example.h"

namespace kamerton::test {

/// A row: ids, mask, labels [T].
inline data::Example flat_example(const at::Tensor& ids_T,
                                  const at::Tensor& mask_T,
                                  const at::Tensor& labels_T) {
  data::Example example;
  for (int64_t t = 0; t < ids_T.size(0); ++t) {
    if (mask_T[t].item<int64_t>() == 0) {
      continue;
    }
    const bool last = t + 1 == ids_T.size(0) || mask_T[t + 1].item<int64_t>() == 0;
    example.tokens.push_back(static_cast<int32_t>(ids_T[t].item<int64_t>()));
    example.targets.push_back(last ? data::kNoTarget
                                   : static_cast<int32_t>(labels_T[t + 1].item<int64_t>()));
  }
  return example;
}

/// ids, mask, labels [B, T]; labels are unshifted as in Hugging Face, -100 where ignored.
inline data::Batch flat_batch(const at::Tensor& ids_BT,
                              const at::Tensor& mask_BT,
                              const at::Tensor& labels_BT) {
  data::Batch batch;
  for (int64_t b = 0; b < ids_BT.size(0); ++b) {
    batch.append(flat_example(ids_BT[b], mask_BT[b], labels_BT[b]), b);
  }
  return batch;
}

/// Rows of [B, T, ...] where the mask is 1, in the order of the flat batch.
inline at::Tensor unpadded(const at::Tensor& values_BT, const at::Tensor& mask_BT) {
  return values_BT.index({mask_BT.to(at::kBool)});
}

}  // namespace kamerton::test
