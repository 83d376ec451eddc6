// SPDX-License-Identifier: Apache-2.0
#include "attention_cache.h"

#include <algorithm>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "kamerton/model/generate.h"
#include "kamerton/tensor/decode.h"

namespace kamerton::model {

AttentionCache::AttentionCache(const DecoderConfig& config, at::TensorOptions options)
    : layers_(config.layers), kv_size_(config.kv_size()), options_(options) {}

int64_t AttentionCache::add_sequence() {
  auto free = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.used; });
  if (free == slots_.end()) {
    free = slots_.insert(slots_.end(), Slot{});
  }
  free->used = true;
  free->length = 0;
  free->layers.assign(static_cast<size_t>(layers_), {});
  return free - slots_.begin();
}

void AttentionCache::remove_sequence(int64_t slot) {
  Slot& gone = slots_[static_cast<size_t>(slot)];
  for (Pages& pages : gone.layers) {
    free_pages_.insert(free_pages_.end(), pages.begin(), pages.end());
  }
  gone = Slot{};
}

void AttentionCache::begin(std::vector<int64_t> slots) {
  active_ = std::move(slots);
}

void AttentionCache::advance(const std::vector<int64_t>& offsets) {
  for (size_t d = 0; d < active_.size(); ++d) {
    slots_[static_cast<size_t>(active_[d])].length += offsets[d + 1] - offsets[d];
  }
  active_.clear();
}

at::Tensor AttentionCache::take_page() {
  if (free_pages_.empty()) {
    return at::empty({2, kPageRows, kv_size_}, options_);
  }
  at::Tensor page = std::move(free_pages_.back());
  free_pages_.pop_back();
  return page;
}

void AttentionCache::store(Pages& pages, int64_t at, const at::Tensor& k, const at::Tensor& v) {
  const int64_t rows = k.size(0);
  for (int64_t done = 0; done < rows;) {
    const int64_t row = (at + done) % kPageRows;
    const auto page = static_cast<size_t>((at + done) / kPageRows);
    if (page == pages.size()) {
      pages.push_back(take_page());
    }
    const int64_t n = std::min(kPageRows - row, rows - done);
    pages[page][0].narrow(0, row, n).copy_(k.narrow(0, done, n));
    pages[page][1].narrow(0, row, n).copy_(v.narrow(0, done, n));
    done += n;
  }
}

at::Tensor AttentionCache::attend(int64_t layer,
                                  const at::Tensor& q,
                                  const at::Tensor& k,
                                  const at::Tensor& v,
                                  const tensor::Rotary& rotary,
                                  const tensor::AttentionShape& shape,
                                  const std::shared_ptr<const std::vector<int64_t>>& offsets) {
  at::Tensor turned_q = q.contiguous();
  at::Tensor turned_k = k.contiguous();
  if (rotary.cos_NR.defined()) {
    tensor::rotate(turned_q, rotary, shape.head_dim);
    tensor::rotate(turned_k, rotary, shape.head_dim);
  }
  bool all_new = true;
  for (size_t d = 0; d < active_.size(); ++d) {
    Slot& slot = slots_[static_cast<size_t>(active_[d])];
    all_new = all_new && slot.length == 0;
    const int64_t begin = (*offsets)[d];
    const int64_t rows = (*offsets)[d + 1] - begin;
    store(slot.layers[static_cast<size_t>(layer)],
          slot.length,
          turned_k.narrow(0, begin, rows),
          v.narrow(0, begin, rows));
  }
  if (all_new) {
    return tensor::attend(turned_q, turned_k, v, {}, shape, offsets);
  }
  return attend_pages(layer, turned_q, shape, *offsets);
}

at::Tensor AttentionCache::attend_pages(int64_t layer,
                                        const at::Tensor& q,
                                        const tensor::AttentionShape& shape,
                                        const std::vector<int64_t>& offsets) const {
  std::vector<tensor::CachedRow> rows;
  rows.reserve(static_cast<size_t>(q.size(0)));
  for (size_t d = 0; d < active_.size(); ++d) {
    const Slot& slot = slots_[static_cast<size_t>(active_[d])];
    for (int64_t i = 0; i < offsets[d + 1] - offsets[d]; ++i) {
      rows.push_back({&slot.layers[static_cast<size_t>(layer)], slot.length + i + 1});
    }
  }
  return tensor::attend_cached(q, rows, shape);
}

int64_t cache_bytes(const DecoderConfig& config,
                    int64_t sequences,
                    int64_t tokens,
                    at::ScalarType dtype) {
  constexpr int64_t kRows = AttentionCache::kPageRows;
  const int64_t pages = (tokens + kRows - 1) / kRows;
  return sequences * config.layers * pages * 2 * kRows * config.kv_size() *
         static_cast<int64_t>(c10::elementSize(dtype));
}

}  // namespace kamerton::model
