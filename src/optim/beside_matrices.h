// SPDX-License-Identifier: Apache-2.0
// What rules that are made for the matrices of blocks (Muon, APOLLO) do with everything else:
// AdamW.
#pragma once

#include "update_rule.h"

namespace kamerton::optim {

bool is_block(const tensor::ParamUnit& unit);
bool outside_blocks(const tensor::ParamUnit& unit);
bool is_matrix(const tensor::Parameter& parameter);

/// Both moments of a block's vector, whole on every rank: vectors are small, and a block's
/// moments by element would be as large as its matrices.
std::vector<SharedKind> vector_kinds(const tensor::Parameter& parameter);

/// Vectors of blocks, whose shared state is vector_kinds(). Collective over step.shard.
void update_block_vectors(const OptimConfig& config,
                          const std::vector<UpdatePart>& parts,
                          const UpdateStep& step);
/// Embeddings, head, final norm, whose state 0 and 1 are AdamW's; then the compute copies of all
/// parts.
void update_others(const OptimConfig& config,
                   const std::vector<UpdatePart>& parts,
                   const UpdateStep& step);

}  // namespace kamerton::optim
