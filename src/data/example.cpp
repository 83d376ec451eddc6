// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/example.h"

#include <algorithm>

namespace kamerton::data {

int64_t Example::target_count() const {
  return static_cast<int64_t>(targets.size()) -
         std::count(targets.begin(), targets.end(), kNoTarget);
}

int64_t Example::length() const {
  return static_cast<int64_t>(tokens.size() + (rejected ? rejected->tokens.size() : 0) +
                              (mismatched ? mismatched->tokens.size() : 0));
}

void Batch::append(const Example& example, int64_t sample_id) {
  if (document_offsets.empty()) {
    document_offsets.push_back(0);
  }
  tokens.insert(tokens.end(), example.tokens.begin(), example.tokens.end());
  targets.insert(targets.end(), example.targets.begin(), example.targets.end());
  const auto length = static_cast<int64_t>(example.tokens.size());
  for (size_t d = 0; d < example.document_starts.size(); ++d) {
    const int64_t begin = example.document_starts[d];
    const int64_t end =
        d + 1 < example.document_starts.size() ? example.document_starts[d + 1] : length;
    for (int64_t p = 0; p < end - begin; ++p) {
      positions.push_back(p);
    }
    document_offsets.push_back(document_offsets.back() + end - begin);
    sample_ids.push_back(sample_id);
    source_indices.push_back(example.source_index);
    marks.push_back(example.label ? static_cast<float>(*example.label)
                                  : static_cast<float>(example.margin));
  }
  target_count += example.target_count();
  if (example.rejected) {
    append(*example.rejected, sample_id);
  }
  if (example.mismatched) {
    const int64_t own = target_count;
    append(*example.mismatched, sample_id);
    target_count = own;
  }
}

}  // namespace kamerton::data
