// SPDX-License-Identifier: Apache-2.0
// Deterministic damage to byte strings, for parsers' tests: the same case number gives the same
// bytes everywhere.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "kamerton/core/random.h"

namespace kamerton::test {

class ByteMutator {
 public:
  /// `words`: pieces that mean something in the format, spliced in now and then.
  ByteMutator(uint64_t seed, std::vector<std::string> words)
      : seed_(seed), words_(std::move(words)) {}

  /// One to four changes to `bytes`.
  std::string operator()(std::string bytes, uint64_t case_number) const {
    const core::RandomStream random(seed_, "test.byte_mutator", case_number);
    uint64_t counter = 0;
    const auto below = [&](uint64_t bound) {
      return random.below(counter++, std::max<uint64_t>(bound, 1));
    };
    for (uint64_t change = 1 + below(4); change > 0 && !bytes.empty(); --change) {
      const size_t at = below(bytes.size());
      switch (below(8)) {
        case 0:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
          break;
        case 1:
          bytes[at] = static_cast<char>(below(256));
          break;
        case 2:
          bytes.resize(at);
          break;
        case 3:
          bytes.erase(at, 1 + below(16));
          break;
        case 4:
          bytes.insert(at, bytes.substr(below(bytes.size()), 1 + below(64)));
          break;
        case 5:
          bytes.insert(at, words_[below(words_.size())]);
          break;
        case 6: {
          const auto& word = words_[below(words_.size())];
          bytes.replace(at, std::min(word.size(), bytes.size() - at), word);
          break;
        }
        default:
          put_integer(bytes, at, below(12));
      }
    }
    return bytes;
  }

 private:
  /// A little-endian integer near a border of some type.
  static void put_integer(std::string& bytes, size_t at, uint64_t which) {
    constexpr uint64_t kBorders[] = {0,
                                     1,
                                     0x7f,
                                     0xff,
                                     0x7fff,
                                     0xffff,
                                     0x7fffffff,
                                     0xffffffff,
                                     uint64_t{1} << 48,
                                     INT64_MAX,
                                     uint64_t{1} << 63,
                                     UINT64_MAX};
    for (size_t i = 0; i < 8 && at + i < bytes.size(); ++i) {
      bytes[at + i] = static_cast<char>((kBorders[which] >> (8 * i)) & 0xff);
    }
  }

  uint64_t seed_;
  std::vector<std::string> words_;
};

}  // namespace kamerton::test
