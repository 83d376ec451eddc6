// SPDX-License-Identifier: Apache-2.0
#include "replay.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kamerton/core/random.h"

#include "shingles.h"

namespace kamerton::data {
namespace {

/// Words share a place of a table when their hashes end alike.
constexpr uint64_t kPlaces = uint64_t{1} << 18;

/// Place of a word -> how often it occurs; in order of places, so that sums have one order.
std::vector<std::pair<uint32_t, float>> counted_words(const std::string& record) {
  std::vector<uint32_t> places;
  for (const uint64_t word : word_hashes(record)) {
    places.push_back(static_cast<uint32_t>(word % kPlaces));
  }
  std::sort(places.begin(), places.end());
  std::vector<std::pair<uint32_t, float>> counts;
  for (const uint32_t place : places) {
    if (counts.empty() || counts.back().first != place) {
      counts.emplace_back(place, 0.0F);
    }
    counts.back().second += 1.0F;
  }
  return counts;
}

/// Logarithm of (records / records with the word).
std::vector<double> rarity(const RecordList& general, const RecordList& own) {
  std::vector<double> weights(kPlaces, 0.0);
  for (const RecordList* list : {&general, &own}) {
    for (int64_t i = 0; i < list->size; ++i) {
      for (const auto& [place, count] : counted_words(list->read(i))) {
        weights[place] += 1.0;
      }
    }
  }
  const auto records = static_cast<double>(general.size + own.size);
  for (double& weight : weights) {
    weight = weight > 0.0 ? std::log((1.0 + records) / (1.0 + weight)) : 0.0;
  }
  return weights;
}

/// Calls visit(place, value) for the record's weighted words, of length 1 together.
template <class Visit>
void visit_vector(const std::string& record,
                  const std::vector<double>& weights,
                  const Visit& visit) {
  const auto words = counted_words(record);
  double squares = 0.0;
  for (const auto& [place, count] : words) {
    const double value = count * weights[place];
    squares += value * value;
  }
  const double norm = squares > 0.0 ? std::sqrt(squares) : 1.0;
  for (const auto& [place, count] : words) {
    visit(place, count * weights[place] / norm);
  }
}

}  // namespace

int64_t replay_count(int64_t own, double ratio) {
  return std::max<int64_t>(1, std::llround(static_cast<double>(own) * ratio / (1.0 - ratio)));
}

std::vector<uint64_t> random_records(int64_t count, int64_t size) {
  const core::Permutation order(static_cast<uint64_t>(size), 0, "data.replay", 0);
  std::vector<uint64_t> chosen;
  for (int64_t i = 0; i < std::min(count, size); ++i) {
    chosen.push_back(order(static_cast<uint64_t>(i)));
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<uint64_t> similar_records(int64_t count,
                                      const RecordList& general,
                                      const RecordList& own) {
  const std::vector<double> weights = rarity(general, own);
  std::vector<double> mean(kPlaces, 0.0);
  for (int64_t i = 0; i < own.size; ++i) {
    visit_vector(own.read(i), weights, [&](uint32_t place, double v) { mean[place] += v; });
  }
  std::vector<double> scores(static_cast<size_t>(general.size), 0.0);
  for (int64_t i = 0; i < general.size; ++i) {
    double& score = scores[static_cast<size_t>(i)];
    visit_vector(
        general.read(i), weights, [&](uint32_t place, double v) { score += v * mean[place]; });
  }
  std::vector<uint64_t> order(scores.size());
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::stable_sort(
      order.begin(), order.end(), [&](uint64_t a, uint64_t b) { return scores[a] > scores[b]; });
  order.resize(static_cast<size_t>(std::min(count, general.size)));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace kamerton::data
