// SPDX-License-Identifier: Apache-2.0
// A batch seen as its documents.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/data/example.h"

namespace kamerton::objective {

inline size_t document_count(const data::Batch& batch) {
  return batch.document_offsets.empty() ? 0 : batch.document_offsets.size() - 1;
}

/// Tokens of document `document` that are trained.
int64_t targets_of(const data::Batch& batch, size_t document);
/// [D] of them, fp32.
at::Tensor target_counts(const data::Batch& batch);

/// int64 [T]: the document that a row belongs to.
at::Tensor document_of_rows(const data::Batch& batch);

/// [T] -> [D]: sums over the rows of each document, differentiable.
at::Tensor sum_documents(const at::Tensor& values_N, const data::Batch& batch);

/// Documents first, first + stride, ... as a batch of their own, without what is attached.
data::Batch take_documents(const data::Batch& batch, size_t first, size_t stride);

/// fp32, or fp64 where asked, on the CPU.
at::Tensor to_tensor(const std::vector<float>& values);
at::Tensor to_tensor(const std::vector<double>& values);
std::vector<float> to_vector(const at::Tensor& values_N);

}  // namespace kamerton::objective
