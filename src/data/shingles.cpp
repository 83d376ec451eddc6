// SPDX-License-Identifier: Apache-2.0
#include "shingles.h"

#include <algorithm>
#include <limits>

namespace kamerton::data {
namespace {

constexpr int kBins = kBands * kRows;
constexpr uint64_t kEmpty = std::numeric_limits<uint64_t>::max();
static_assert(kBins == 128, "a bin is the first seven bits of a hash");

/// splitmix64's finaliser (Steele, Lea, Flood 2014): a bijection that mixes all bits.
uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9ULL;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

bool is_word_byte(uint8_t byte) {
  return byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
         (byte >= 'A' && byte <= 'Z');
}

/// Signs that change what a formula or a program says: words of their own.
bool is_operator(uint8_t byte) {
  constexpr std::string_view kOperators = "+-*/=<>%^&|~#@$";
  return kOperators.find(static_cast<char>(byte)) != std::string_view::npos;
}

/// FNV-1a, mixed.
class WordHash {
 public:
  void add(uint8_t byte) { hash_ = (hash_ ^ byte) * 0x100000001B3ULL; }
  bool empty() const { return hash_ == kOffset; }
  uint64_t take() {
    const uint64_t result = mix(hash_);
    hash_ = kOffset;
    return result;
  }

 private:
  static constexpr uint64_t kOffset = 0xCBF29CE484222325ULL;
  uint64_t hash_ = kOffset;
};

/// Calls visit(hash) for each word.
template <class Visit>
void for_each_word(std::string_view text, const Visit& visit) {
  WordHash word;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (is_word_byte(byte)) {
      word.add(byte >= 'A' && byte <= 'Z' ? byte + 32 : byte);
      continue;
    }
    if (!word.empty()) {
      visit(word.take());
    }
    if (is_operator(byte)) {
      word.add(byte);
      visit(word.take());
    }
  }
  if (!word.empty()) {
    visit(word.take());
  }
}

}  // namespace

std::vector<uint64_t> word_hashes(std::string_view text) {
  std::vector<uint64_t> words;
  for_each_word(text, [&words](uint64_t word) { words.push_back(word); });
  return words;
}

std::vector<uint64_t> shingles_of(std::string_view text, const StopShingles& stop) {
  std::vector<uint64_t> result;
  std::array<uint64_t, 2> before = {};
  int64_t seen = 0;
  for_each_word(text, [&](uint64_t word) {
    if (++seen >= 3) {
      const uint64_t shingle = mix(mix(mix(before[0]) + before[1]) + word);
      if (stop.empty() || stop.count(shingle) == 0) {
        result.push_back(shingle);
      }
    }
    before = {before[1], word};
  });
  std::sort(result.begin(), result.end());
  result.erase(std::unique(result.begin(), result.end()), result.end());
  return result;
}

uint64_t text_key(std::string_view text) {
  uint64_t key = 0x6B616D6572746F6EULL;
  WordHash word;
  const auto close = [&] {
    if (!word.empty()) {
      key = mix(key + 0x9E3779B97F4A7C15ULL) ^ word.take();
    }
  };
  for (const char c : text) {
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
      close();
    } else {
      word.add(static_cast<uint8_t>(c));
    }
  }
  close();
  return mix(key);
}

double jaccard(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  size_t common = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    common += a[i] == b[j] ? 1 : 0;
    const bool forward = a[i] <= b[j];
    j += b[j] <= a[i] ? 1 : 0;
    i += forward ? 1 : 0;
  }
  const size_t all = a.size() + b.size() - common;
  return all == 0 ? 0.0 : static_cast<double>(common) / static_cast<double>(all);
}

std::array<uint64_t, kBands> band_keys(const std::vector<uint64_t>& shingles) {
  std::array<uint64_t, kBins> bins;
  bins.fill(kEmpty);
  for (const uint64_t shingle : shingles) {
    uint64_t& bin = bins[shingle >> 57];
    bin = std::min(bin, shingle);
  }
  std::array<uint64_t, kBins> dense = bins;
  for (uint64_t i = 0; i < kBins && !shingles.empty(); ++i) {
    // An empty bin borrows from a full one that (bin, attempt) names: the same for every set.
    for (uint64_t attempt = 1; dense[i] == kEmpty; ++attempt) {
      dense[i] = bins[mix(i << 32 | attempt) >> 57];
    }
  }
  std::array<uint64_t, kBands> keys = {};
  for (size_t band = 0; band < kBands; ++band) {
    uint64_t key = mix(band + 1);
    for (size_t row = 0; row < kRows; ++row) {
      key = mix(key + dense[band * kRows + row]);
    }
    keys[band] = key;
  }
  return keys;
}

}  // namespace kamerton::data
