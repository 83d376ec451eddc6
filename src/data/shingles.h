// SPDX-License-Identifier: Apache-2.0
// Texts as sets of word triples, and short signatures of such sets.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace kamerton::data {

/// Hashes of shingles that most records share (a fixed instruction): they tell nothing apart.
using StopShingles = std::unordered_set<uint64_t>;

/// Of a text's words (letters and digits, ASCII in lower case; signs of arithmetic count as words,
/// punctuation does not): sorted, without repeats, without `stop`. Fewer than three words: empty.
std::vector<uint64_t> shingles_of(std::string_view text, const StopShingles& stop);

/// Of each word of a text, in order.
std::vector<uint64_t> word_hashes(std::string_view text);

/// Equal for texts that differ in blanks only.
uint64_t text_key(std::string_view text);

/// |A and B| / |A or B| of sorted sets.
double jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b);

/// MinHash (Broder 1997) by one permutation with optimal densification (Shrivastava 2017), in bands
/// (Indyk, Motwani 1998): two sets share one of the kBands keys with probability
/// 1 - (1 - J^kRows)^kBands: 0.06 at J = 0.5, 0.61 at 0.7, 0.95 at 0.8, over 0.999 at 0.9.
inline constexpr int kBands = 16;
inline constexpr int kRows = 8;
std::array<uint64_t, kBands> band_keys(const std::vector<uint64_t>& shingles);

}  // namespace kamerton::data
