// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/combine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/federation/site_noise.h"
#include "kamerton/federation/vector_file.h"

namespace kamerton::federation {
namespace {

/// Values of all contributions together that are in memory at once.
constexpr int64_t kValuesAtOnce = int64_t{1} << 23;

/// Encoded bytes of [begin, begin + count), begin a multiple of kBlock, decoded.
void read_range(const RangeFile& file,
                const Codec& codec,
                int64_t begin,
                std::span<float> out,
                std::vector<std::byte>& bytes) {
  const auto count = static_cast<int64_t>(out.size());
  const int64_t first = encoded_offset(codec, begin / kBlock);
  bytes.resize(static_cast<size_t>(encoded_size(codec, count)));
  file.read(first, std::span<std::byte>(bytes));
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t length = std::min(kBlock, count - at);
    const int64_t offset = encoded_offset(codec, at / kBlock);
    codec.decode(std::span<const std::byte>(bytes).subspan(
                     static_cast<size_t>(offset), static_cast<size_t>(codec.block_bytes(length))),
                 out.subspan(static_cast<size_t>(at), static_cast<size_t>(length)));
  }
}

int64_t chunk_for(size_t contributions) {
  const int64_t each = kValuesAtOnce / std::max<int64_t>(static_cast<int64_t>(contributions), 1);
  return std::clamp<int64_t>(each / kBlock, 1, 64) * kBlock;
}

/// Sorted values of one coordinate -> one value.
double middle(const std::vector<float>& sorted) {
  const size_t n = sorted.size();
  const double high = sorted[n / 2];
  return n % 2 == 1 ? high : (sorted[n / 2 - 1] + high) / 2;
}

double trimmed(const std::vector<float>& sorted, size_t drop) {
  double sum = 0;
  for (size_t i = drop; i + drop < sorted.size(); ++i) {
    sum += sorted[i];
  }
  return sum / static_cast<double>(sorted.size() - 2 * drop);
}

}  // namespace

double check_update(const std::filesystem::path& path, const Codec& codec, int64_t elements) {
  const RangeFile file = RangeFile::open(path, encoded_size(codec, elements));
  const int64_t chunk = 64 * kBlock;
  std::vector<float> values(static_cast<size_t>(std::min(chunk, elements)));
  std::vector<std::byte> bytes;
  double sum = 0;
  for (int64_t begin = 0; begin < elements; begin += chunk) {
    const std::span<float> out(values.data(),
                               static_cast<size_t>(std::min(chunk, elements - begin)));
    read_range(file, codec, begin, out, bytes);
    for (const float value : out) {
      sum += static_cast<double>(value) * value;
    }
  }
  return std::sqrt(sum);
}

struct Combiner::State {
  FederationConfig config;
  std::unique_ptr<Codec> codec;
  std::vector<Contribution> contributions;  ///< by site; only those in force
  std::vector<RangeFile> files;
  std::vector<double> factors;  ///< share of the weights, with the norm bound
  int64_t elements = 0;
  std::optional<privacy::MaskPlan> masks;
  std::optional<privacy::RingCodec> noisy_ring;  ///< of sums that carry noise
  mutable std::vector<std::byte> bytes;

  void open_files() {
    files.clear();
    for (const Contribution& contribution : contributions) {
      files.push_back(
          RangeFile::open(contribution.file, encoded_size(*codec, travelling(config, elements))));
    }
  }

  std::vector<std::vector<float>> read_all(int64_t begin, int64_t count) const {
    std::vector<std::vector<float>> values(files.size());
    for (size_t k = 0; k < files.size(); ++k) {
      values[k].resize(static_cast<size_t>(count));
      read_range(files[k], *codec, begin, values[k], bytes);
    }
    return values;
  }

  /// Squared distances between all pairs, [n * n].
  std::vector<double> distances() const {
    const size_t n = files.size();
    std::vector<double> squared(n * n, 0.0);
    const int64_t chunk = chunk_for(n);
    for (int64_t begin = 0; begin < elements; begin += chunk) {
      const auto values = read_all(begin, std::min(chunk, elements - begin));
      for (size_t i = 0; i < n; ++i) {
        for (size_t j = i + 1; j < n; ++j) {
          double sum = 0;
          for (size_t e = 0; e < values[i].size(); ++e) {
            const double gap = static_cast<double>(values[i][e]) - values[j][e];
            sum += gap * gap;
          }
          squared[i * n + j] += sum;
          squared[j * n + i] += sum;
        }
      }
    }
    return squared;
  }

  void keep_krum() {
    const size_t n = files.size();
    const auto f = static_cast<size_t>(config.robust.byzantine);
    const std::vector<double> squared = distances();
    std::vector<std::pair<double, size_t>> scores;
    for (size_t i = 0; i < n; ++i) {
      std::vector<double> row;
      for (size_t j = 0; j < n; ++j) {
        if (j != i) {
          row.push_back(squared[i * n + j]);
        }
      }
      std::sort(row.begin(), row.end());
      scores.emplace_back(
          std::accumulate(row.begin(), row.begin() + static_cast<int64_t>(n - f - 2), 0.0), i);
    }
    std::sort(scores.begin(), scores.end());
    scores.resize(config.robust.rule == "krum" ? 1 : n - f);
    std::vector<Contribution> best;
    for (const auto& [score, index] : scores) {
      best.push_back(contributions[index]);
      best.back().weight = 1;
    }
    std::sort(
        best.begin(), best.end(), [](const auto& a, const auto& b) { return a.site < b.site; });
    contributions = std::move(best);
    open_files();
  }

  void weigh() {
    double total = 0;
    for (const Contribution& contribution : contributions) {
      total += contribution.weight;
    }
    for (const Contribution& contribution : contributions) {
      const double bound = config.robust.norm_bound;
      const double shrink =
          bound > 0 && contribution.norm > bound ? bound / contribution.norm : 1.0;
      factors.push_back(shrink * contribution.weight / total);
    }
  }

  void run_mean(int64_t begin, std::span<double> out, std::vector<float>& values) const {
    for (size_t k = 0; k < files.size(); ++k) {
      read_range(files[k], *codec, begin, values, bytes);
      for (size_t e = 0; e < out.size(); ++e) {
        out[e] += factors[k] * values[e];
      }
    }
  }

  /// Integers [begin, begin + count) added up, without their masks.
  std::vector<uint32_t> ring_sum(int64_t begin, size_t count) const {
    std::vector<uint32_t> levels(count);
    std::vector<uint32_t> sum(count, 0);
    for (const RangeFile& file : files) {
      file.read(begin * 4, std::as_writable_bytes(std::span(levels)));
      for (size_t e = 0; e < sum.size(); ++e) {
        sum[e] += levels[e];
      }
    }
    if (masks.has_value()) {
      masks->apply(std::span<uint32_t>(sum), static_cast<uint64_t>(begin));
    }
    return sum;
  }

  /// The mean of the sites' weights, which stands behind the last element.
  double mean_weight() const {
    if (!weighs_integers(config)) {
      return 1;
    }
    const double mean = ring_mean(ring_sum(elements, 1)[0],
                                  static_cast<int64_t>(files.size()),
                                  config.update.ring_range) /
                        config.update.ring_range;
    if (!(mean > 0)) {
      throw core::Error(core::ErrorKind::Data,
                        {.where = "federation.combine",
                         .what = "the sites' weights add up to nothing",
                         .hint = "a smaller update.max_weight"});
    }
    return mean;
  }

  void run_ring(int64_t begin, double weight, std::span<double> out) const {
    const std::vector<uint32_t> sum = ring_sum(begin, out.size());
    if (noisy_ring.has_value()) {
      noisy_ring->decode(
          std::span<const uint32_t>(sum), out, 1.0 / static_cast<double>(files.size()));
      return;
    }
    for (size_t e = 0; e < sum.size(); ++e) {
      out[e] =
          ring_mean(sum[e], static_cast<int64_t>(files.size()), config.update.ring_range) / weight;
    }
  }

  void run_by_coordinate(int64_t begin, std::span<double> out) const {
    const auto values = read_all(begin, static_cast<int64_t>(out.size()));
    std::vector<float> column(values.size());
    const auto drop = static_cast<size_t>(config.robust.byzantine);
    const bool median = config.robust.rule == "median";
    for (size_t e = 0; e < out.size(); ++e) {
      for (size_t k = 0; k < values.size(); ++k) {
        column[k] = static_cast<float>(values[k][e] * shrink(k));
      }
      std::sort(column.begin(), column.end());
      out[e] = median ? middle(column) : trimmed(column, drop);
    }
  }

  double shrink(size_t k) const {
    const double bound = config.robust.norm_bound;
    const double norm = contributions[k].norm;
    return bound > 0 && norm > bound ? bound / norm : 1.0;
  }
};

Combiner::Combiner(const FederationConfig& config,
                   std::vector<Contribution> contributions,
                   int64_t elements)
    : state_(new State) {
  State& state = *state_;
  state.config = config;
  state.codec = make_codec(config, elements, 0);
  if (hides_sites(config)) {
    state.noisy_ring = site_noise_plan(config, elements).codec;
  }
  state.elements = elements;
  std::sort(contributions.begin(), contributions.end(), [](const auto& a, const auto& b) {
    return a.site < b.site;
  });
  state.contributions = std::move(contributions);
  const bool krum = config.robust.rule == "krum" || config.robust.rule == "multi_krum";
  const int64_t needed = krum                                   ? 2 * config.robust.byzantine + 3
                         : config.robust.rule == "trimmed_mean" ? 2 * config.robust.byzantine + 1
                                                                : 1;
  const auto have = static_cast<int64_t>(state.contributions.size());
  if (have < needed || have > kRingMostSites) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "federation.combine",
         .what = fmt::format("rule {} cannot work with {} updates", config.robust.rule, have),
         .allowed = fmt::format("{} to {}", needed, kRingMostSites)});
  }
  state.open_files();
  if (krum) {
    state.keep_krum();
  }
  state.weigh();
}

Combiner::~Combiner() = default;

void Combiner::unmask_with(privacy::MaskPlan plan) {
  state_->masks = std::move(plan);
}

std::vector<std::string> Combiner::sites() const {
  std::vector<std::string> names;
  for (const Contribution& contribution : state_->contributions) {
    names.push_back(contribution.site);
  }
  return names;
}

std::vector<double> Combiner::shares() const {
  return state_->factors;
}

void Combiner::run(const Take& take) const {
  const State& state = *state_;
  const int64_t chunk = chunk_for(state.files.size());
  std::vector<double> out;
  std::vector<float> values;
  const std::string& rule = state.config.robust.rule;
  const double weight = state.mean_weight();
  for (int64_t begin = 0; begin < state.elements; begin += chunk) {
    const auto count = static_cast<size_t>(std::min(chunk, state.elements - begin));
    out.assign(count, 0.0);
    values.resize(count);
    if (state.config.update.encoding == "ring32") {
      state.run_ring(begin, weight, out);
    } else if (rule == "median" || rule == "trimmed_mean") {
      state.run_by_coordinate(begin, out);
    } else {
      state.run_mean(begin, out, values);
    }
    take(begin, out);
  }
}

void Combiner::read(size_t site, int64_t begin, std::span<float> out) const {
  read_range(state_->files[site], *state_->codec, begin, out, state_->bytes);
}

}  // namespace kamerton::federation
