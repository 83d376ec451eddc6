// SPDX-License-Identifier: Apache-2.0
// Keys and values of the sequences being generated, in pages: memory grows by a page, nothing is
// moved.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/model/architecture.h"
#include "kamerton/tensor/attention.h"

namespace kamerton::model {

class AttentionCache {
 public:
  static constexpr int64_t kPageRows = 128;

  AttentionCache(const DecoderConfig& config, at::TensorOptions options);

  /// A new, empty sequence; returns its slot.
  int64_t add_sequence();
  void remove_sequence(int64_t slot);
  int64_t length(int64_t slot) const { return slots_[static_cast<size_t>(slot)].length; }
  /// Whether document d of the forward under way is a new sequence.
  bool begins(size_t d) const { return length(active_[d]) == 0; }

  /// The next forward holds these slots' new tokens, document by document. advance() ends it.
  void begin(std::vector<int64_t> slots);
  void advance(const std::vector<int64_t>& offsets);

  /// Rotates, stores the new keys and values of `layer` and attends to all of the sequence. Fast
  /// for forwards of new sequences only (prefill) and of one row each (decode); correct for any
  /// mix.
  at::Tensor attend(int64_t layer,
                    const at::Tensor& q,
                    const at::Tensor& k,
                    const at::Tensor& v,
                    const tensor::Rotary& rotary,
                    const tensor::AttentionShape& shape,
                    const std::shared_ptr<const std::vector<int64_t>>& offsets);

 private:
  /// [2, kPageRows, kv_size]: keys, values.
  using Pages = std::vector<at::Tensor>;
  struct Slot {
    bool used = false;
    int64_t length = 0;
    std::vector<Pages> layers;
  };

  void store(Pages& pages, int64_t at, const at::Tensor& k, const at::Tensor& v);
  at::Tensor take_page();
  at::Tensor attend_pages(int64_t layer,
                          const at::Tensor& q,
                          const tensor::AttentionShape& shape,
                          const std::vector<int64_t>& offsets) const;
  int64_t layers_;
  int64_t kv_size_;
  at::TensorOptions options_;
  std::vector<Slot> slots_;
  std::vector<at::Tensor> free_pages_;
  std::vector<int64_t> active_;
};

}  // namespace kamerton::model
