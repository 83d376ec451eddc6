// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "kamerton/model/decoder.h"

namespace kamerton::model {

Rows Rows::from_documents(const std::vector<std::vector<int64_t>>& documents) {
  std::vector<int64_t> tokens;
  std::vector<int64_t> positions;
  Rows rows;
  rows.document_offsets.push_back(0);
  for (const std::vector<int64_t>& document : documents) {
    for (size_t i = 0; i < document.size(); ++i) {
      tokens.push_back(document[i]);
      positions.push_back(static_cast<int64_t>(i));
    }
    rows.document_offsets.push_back(static_cast<int64_t>(tokens.size()));
  }
  rows.tokens_N = at::tensor(tokens, at::kLong);
  rows.positions_N = at::tensor(positions, at::kLong);
  return rows;
}

}  // namespace kamerton::model
