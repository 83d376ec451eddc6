// SPDX-License-Identifier: Apache-2.0
// What all blocks of one forward share.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kamerton/tensor/attention.h"

namespace kamerton::model {

class AttentionCache;

/// Cheap to copy (kept by checkpointed blocks).
struct BlockContext {
  tensor::Rotary rotary;
  std::shared_ptr<const std::vector<int64_t>> offsets;
  AttentionCache* cache = nullptr;
};

}  // namespace kamerton::model
