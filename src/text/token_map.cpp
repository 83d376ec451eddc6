// SPDX-License-Identifier: Apache-2.0
#include "token_map.h"

#include <algorithm>
#include <bit>

namespace kamerton::text {

void TokenMap::reserve(size_t count) {
  const size_t wanted = std::bit_ceil(count * 2 + 2);
  if (wanted <= slots_.size()) {
    return;
  }
  const std::vector<Slot> old = std::move(slots_);
  slots_.assign(wanted, Slot{});
  mask_ = wanted - 1;
  for (const Slot& slot : old) {
    if (slot.id >= 0) {
      size_t i = hash_bytes(bytes_.data() + slot.at, slot.size) & mask_;
      while (slots_[i].id >= 0) {
        i = (i + 1) & mask_;
      }
      slots_[i] = slot;
    }
  }
}

bool TokenMap::insert(std::string_view token, int32_t id) {
  reserve(count_ + 1);
  size_t i = hash_bytes(token.data(), token.size()) & mask_;
  while (slots_[i].id >= 0) {
    if (std::string_view(bytes_).substr(slots_[i].at, slots_[i].size) == token) {
      return false;
    }
    i = (i + 1) & mask_;
  }
  slots_[i] = {bytes_.size(), static_cast<uint32_t>(token.size()), id};
  bytes_.append(token);
  ++count_;
  return true;
}

void MergeMap::reserve(size_t count) {
  const size_t wanted = std::bit_ceil(count * 2 + 2);
  if (wanted <= slots_.size()) {
    return;
  }
  const std::vector<Slot> old = std::move(slots_);
  slots_.assign(wanted, Slot{});
  mask_ = wanted - 1;
  for (const Slot& slot : old) {
    if (slot.key != kNone) {
      size_t i = start(slot.key);
      while (slots_[i].key != kNone) {
        i = (i + 1) & mask_;
      }
      slots_[i] = slot;
    }
  }
}

void MergeMap::insert(int32_t left, int32_t right, uint32_t rank, int32_t whole) {
  reserve(count_ + 1);
  const uint64_t key = key_of(left, right);
  size_t i = start(key);
  while (slots_[i].key != kNone && slots_[i].key != key) {
    i = (i + 1) & mask_;
  }
  count_ += slots_[i].key == kNone ? 1 : 0;
  slots_[i] = {key, static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(whole)};
}

std::vector<uint32_t> MergeMap::lowest_ranks_by_left() const {
  std::vector<uint32_t> ranks;
  for (const Slot& slot : slots_) {
    if (slot.key == kNone) {
      continue;
    }
    const auto left = static_cast<size_t>(slot.key >> 32);
    if (left >= ranks.size()) {
      ranks.resize(left + 1, kNoRank);
    }
    ranks[left] = std::min(ranks[left], static_cast<uint32_t>(slot.value >> 32));
  }
  return ranks;
}

}  // namespace kamerton::text
