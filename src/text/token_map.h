// SPDX-License-Identifier: Apache-2.0
// Hash tables made once and read often: byte strings to ids, pairs of ids to merges.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace kamerton::text {

/// Mixes eight bytes at a time; not for untrusted keys where collisions matter beyond speed.
inline uint64_t hash_bytes(const char* data, size_t size) {
  uint64_t h = 0x9E3779B97F4A7C15ull ^ (size * 0xD6E8FEB86659FD93ull);
  while (size >= 8) {
    uint64_t block;
    std::memcpy(&block, data, 8);
    h = (h ^ block) * 0xD6E8FEB86659FD93ull;
    h ^= h >> 32;
    data += 8;
    size -= 8;
  }
  uint64_t rest = 0;
  std::memcpy(&rest, data, size);
  h = (h ^ rest) * 0xD6E8FEB86659FD93ull;
  h ^= h >> 29;
  h *= 0x9E3779B97F4A7C15ull;
  return h ^ h >> 32;
}

/// Strings to ids. Linear probing at most half full.
class TokenMap {
 public:
  void reserve(size_t count);
  /// False when the token is there already (it keeps its id).
  bool insert(std::string_view token, int32_t id);
  /// The id, or -1.
  int32_t find(std::string_view token) const {
    if (slots_.empty()) {
      return -1;
    }
    for (size_t i = hash_bytes(token.data(), token.size()) & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.id < 0) {
        return -1;
      }
      if (slot.size == token.size() &&
          std::memcmp(bytes_.data() + slot.at, token.data(), token.size()) == 0) {
        return slot.id;
      }
    }
  }
  size_t size() const { return count_; }

 private:
  struct Slot {
    uint64_t at = 0;
    uint32_t size = 0;
    int32_t id = -1;
  };
  std::vector<Slot> slots_;
  std::string bytes_;
  size_t mask_ = 0;
  size_t count_ = 0;
};

/// A pair of ids to rank << 32 | id of the whole.
class MergeMap {
 public:
  static constexpr uint64_t kNone = ~uint64_t{0};
  static constexpr uint32_t kNoRank = ~uint32_t{0};
  void reserve(size_t count);
  /// A pair given again takes the later rank, as in the reference library.
  void insert(int32_t left, int32_t right, uint32_t rank, int32_t whole);
  uint64_t find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = start(key);; i = (i + 1) & mask_) {
      if (slots_[i].key == key) {
        return slots_[i].value;
      }
      if (slots_[i].key == kNone) {
        return kNone;
      }
    }
  }
  size_t size() const { return count_; }
  /// By id: the lowest rank of the merges that a token is the left part of; kNoRank without any.
  std::vector<uint32_t> lowest_ranks_by_left() const;

 private:
  struct Slot {
    uint64_t key = kNone;
    uint64_t value = kNone;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t start(uint64_t key) const {
    const uint64_t h = key * 0x9E3779B97F4A7C15ull;
    return (h ^ h >> 29) >> 7 & mask_;
  }
  std::vector<Slot> slots_{2};
  size_t mask_ = 1;
  size_t count_ = 0;
};

}  // namespace kamerton::text
