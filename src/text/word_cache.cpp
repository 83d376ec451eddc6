// SPDX-License-Identifier: Apache-2.0
#include "word_cache.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>

namespace kamerton::text {
namespace {

constexpr size_t kIds = 7;
constexpr size_t kSlots = 1 << 15;

struct Slot {
  uint64_t hash;
  uint32_t serial;
  uint8_t length;
  uint8_t count;
  char word[WordCache::kLongestWord];
  int32_t ids[kIds];
};
static_assert(sizeof(Slot) == 64);

Slot& slot_of(uint64_t hash) {
  thread_local const std::unique_ptr<Slot[]> slots(new Slot[kSlots]());
  return slots[hash & (kSlots - 1)];
}

}  // namespace

WordCache::WordCache() {
  static std::atomic<uint32_t> serials{0};
  serial_ = ++serials;
}

bool WordCache::find(uint64_t hash, std::string_view word, std::vector<int32_t>& ids) const {
  const Slot& slot = slot_of(hash);
  if (slot.hash != hash || slot.serial != serial_ || slot.length != word.size() ||
      std::memcmp(slot.word, word.data(), word.size()) != 0) {
    return false;
  }
  if (slot.count == 1) {
    ids.push_back(slot.ids[0]);
  } else {
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
  }
  return true;
}

void WordCache::put(uint64_t hash,
                    std::string_view word,
                    const std::vector<int32_t>& ids,
                    size_t from) const {
  const size_t count = ids.size() - from;
  if (count > kIds) {
    return;
  }
  Slot& slot = slot_of(hash);
  slot.hash = hash;
  slot.serial = serial_;
  slot.length = static_cast<uint8_t>(word.size());
  slot.count = static_cast<uint8_t>(count);
  std::memcpy(slot.word, word.data(), word.size());
  std::copy(ids.begin() + static_cast<ptrdiff_t>(from), ids.end(), slot.ids);
}

}  // namespace kamerton::text
