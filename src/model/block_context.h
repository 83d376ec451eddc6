// SPDX-License-Identifier: Apache-2.0
// What all blocks of one forward share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kamerton/tensor/attention.h"
#include "kamerton/tensor/experts.h"

namespace kamerton::model {

class AttentionCache;
class LeadRows;

/// Cheap to copy (kept by checkpointed blocks).
struct BlockContext {
  tensor::Rotary rotary;
  tensor::Rotary local_rotary;  ///< of sliding layers, where they have their own
  std::shared_ptr<const std::vector<int64_t>> offsets;
  AttentionCache* cache = nullptr;
  /// Prefix tuning: offsets and rotary tables count the prefix's rows too. Null: none.
  std::shared_ptr<const LeadRows> prefix = nullptr;
  std::shared_ptr<tensor::RouterTotals> router_totals = nullptr;  ///< null: a model without experts
  /// Told (layer, logits [N, E]) by every router.
  std::function<void(int64_t, const at::Tensor&)> router_observer = nullptr;
};

}  // namespace kamerton::model
