// SPDX-License-Identifier: Apache-2.0
#include "mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kamerton/core/random.h"

namespace kamerton::data {

Mixture::Mixture(int64_t size) : Mixture(std::vector<MixturePart>{{.size = size}}, 1.0) {}

Mixture::Mixture(std::span<const MixturePart> parts, double temperature) {
  std::vector<double> shares;
  for (const MixturePart& part : parts) {
    parts_.push_back({.first = size_, .size = part.size, .slot = 0, .count = part.size});
    size_ += part.size;
    shares.push_back(
        part.weight.value_or(std::pow(static_cast<double>(part.size), 1.0 / temperature)));
  }
  const bool weighted = !parts.empty() && parts.front().weight.has_value();
  if (weighted || temperature != 1.0) {
    count_parts(std::move(shares));
  }
  int64_t slot = 0;
  for (Part& part : parts_) {
    part.slot = slot;
    slot += part.count;
    even_ = even_ && part.count == part.size;
  }
}

/// Whole numbers with the sum size_: the floors, then one more for the largest remainders.
void Mixture::count_parts(std::vector<double> shares) {
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<size_t> order(shares.size());
  std::iota(order.begin(), order.end(), size_t{0});
  int64_t left = size_;
  for (size_t i = 0; i < shares.size(); ++i) {
    const double exact = shares[i] / sum * static_cast<double>(size_);
    parts_[i].count = std::max<int64_t>(1, static_cast<int64_t>(exact));
    shares[i] = exact - std::floor(exact);
    left -= parts_[i].count;
  }
  std::stable_sort(
      order.begin(), order.end(), [&](size_t a, size_t b) { return shares[a] > shares[b]; });
  for (size_t i = 0; left > 0; ++i, --left) {
    ++parts_[order[i % order.size()]].count;
  }
  while (left < 0) {  // tiny sources were given their one: the largest pays
    auto largest = std::max_element(
        parts_.begin(), parts_.end(), [](auto& a, auto& b) { return a.count < b.count; });
    --largest->count;
    ++left;
  }
}

int64_t Mixture::example(int64_t epoch, int64_t position, uint64_t seed, bool shuffle) const {
  int64_t slot = position;
  if (shuffle) {
    const core::Permutation order(
        static_cast<uint64_t>(size_), seed, "data.order", static_cast<uint64_t>(epoch));
    slot = static_cast<int64_t>(order(static_cast<uint64_t>(position)));
  }
  if (even_) {
    return slot;
  }
  const auto after =
      std::upper_bound(parts_.begin(), parts_.end(), slot, [](int64_t at, const Part& part) {
        return at < part.slot;
      });
  const Part& part = *std::prev(after);
  const int64_t drawn = epoch * part.count + slot - part.slot;
  const int64_t pass = drawn / part.size;
  int64_t index = drawn % part.size;
  if (shuffle) {
    // Sources are told apart by where they begin.
    const core::Permutation order(static_cast<uint64_t>(part.size),
                                  seed + static_cast<uint64_t>(part.first),
                                  "data.source",
                                  static_cast<uint64_t>(pass));
    index = static_cast<int64_t>(order(static_cast<uint64_t>(index)));
  }
  return part.first + index;
}

}  // namespace kamerton::data
