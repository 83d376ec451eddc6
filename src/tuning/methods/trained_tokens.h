// SPDX-License-Identifier: Apache-2.0
// Chosen rows of the embedding as a part of any adapter.
#pragma once

#include <string>

#include "../method.h"

namespace kamerton::tuning {

/// Trains the embedding's rows at `indices` (a list of tokens), of a tied head too. `infix` stands
/// in the tensor's name behind the embedding's. Takes the embedding's one extension.
void attach_tokens(Builder& builder, const core::Json& indices, const std::string& infix);

}  // namespace kamerton::tuning
