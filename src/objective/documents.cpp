// SPDX-License-Identifier: Apache-2.0
#include "documents.h"

#include <ATen/ATen.h>

namespace kamerton::objective {

int64_t targets_of(const data::Batch& batch, size_t document) {
  int64_t count = 0;
  for (int64_t n = batch.document_offsets[document]; n < batch.document_offsets[document + 1];
       ++n) {
    count += batch.targets[static_cast<size_t>(n)] != data::kNoTarget ? 1 : 0;
  }
  return count;
}

at::Tensor target_counts(const data::Batch& batch) {
  at::Tensor counts_D = at::empty({static_cast<int64_t>(document_count(batch))}, at::kFloat);
  auto* counts = counts_D.mutable_data_ptr<float>();
  for (size_t d = 0; d < document_count(batch); ++d) {
    counts[d] = static_cast<float>(targets_of(batch, d));
  }
  return counts_D;
}

at::Tensor document_of_rows(const data::Batch& batch) {
  at::Tensor document_N = at::empty({static_cast<int64_t>(batch.tokens.size())}, at::kLong);
  auto* document = document_N.mutable_data_ptr<int64_t>();
  for (size_t d = 0; d < document_count(batch); ++d) {
    std::fill(document + batch.document_offsets[d],
              document + batch.document_offsets[d + 1],
              static_cast<int64_t>(d));
  }
  return document_N;
}

at::Tensor sum_documents(const at::Tensor& values_N, const data::Batch& batch) {
  return at::zeros({static_cast<int64_t>(document_count(batch))}, values_N.options())
      .index_add(0, document_of_rows(batch).to(values_N.device()), values_N);
}

data::Batch take_documents(const data::Batch& batch, size_t first, size_t stride) {
  data::Batch taken;
  taken.rows = batch.rows;
  taken.document_offsets.push_back(0);
  const auto copy =
      [](const std::vector<int64_t>& from, std::vector<int64_t>& to, int64_t begin, int64_t end) {
        to.insert(to.end(), from.begin() + begin, from.begin() + end);
      };
  for (size_t d = first; d < document_count(batch); d += stride) {
    const int64_t begin = batch.document_offsets[d];
    const int64_t end = batch.document_offsets[d + 1];
    copy(batch.tokens, taken.tokens, begin, end);
    copy(batch.targets, taken.targets, begin, end);
    copy(batch.positions, taken.positions, begin, end);
    taken.document_offsets.push_back(taken.document_offsets.back() + end - begin);
    taken.sample_ids.push_back(batch.sample_ids[d]);
    taken.source_indices.push_back(batch.source_indices[d]);
    taken.marks.push_back(batch.marks[d]);
    taken.target_count += targets_of(batch, d);
  }
  return taken;
}

at::Tensor to_tensor(const std::vector<float>& values) {
  return at::tensor(values, at::kFloat);
}

at::Tensor to_tensor(const std::vector<double>& values) {
  return at::tensor(values, at::kDouble);
}

std::vector<float> to_vector(const at::Tensor& values_N) {
  const at::Tensor host = values_N.detach().to(at::kCPU, at::kFloat).contiguous();
  return {host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel()};
}

}  // namespace kamerton::objective
