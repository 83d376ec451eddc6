// SPDX-License-Identifier: Apache-2.0
// The state of the next round from this round's updates. A pure function of files, so that a crash
// in the middle is repaired by doing it again.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/federation/low_rank.h"
#include "kamerton/federation/server_optimizer.h"
#include "kamerton/storage/filesystem.h"

#include "coordinator_state.h"

namespace kamerton::federation {
namespace {

namespace fs = std::filesystem;

/// A vector of the next round under its temporary name.
class NextFile {
 public:
  NextFile(fs::path path, int64_t elements) : path_(std::move(path)) {
    fs::remove(temporary());
    file_ = RangeFile::open_or_create(temporary(), 4 * elements);
  }
  RangeFile& file() { return file_; }
  void sync() { file_.sync(); }
  void publish() {
    storage::posix_filesystem().rename(temporary(), path_);
    storage::posix_filesystem().sync_directory(path_.parent_path());
  }
  fs::path temporary() const { return path_.string() + ".next"; }

 private:
  fs::path path_;
  RangeFile file_;
};

/// Elements of the vector as the last round left them, or `otherwise` in the first.
void read_or(const RangeFile& file, int64_t begin, std::span<float> out, float otherwise) {
  if (file) {
    file.read(begin, out);
  } else {
    std::fill(out.begin(), out.end(), otherwise);
  }
}

RangeFile open_if_there(const fs::path& path, int64_t elements) {
  return fs::exists(path) ? RangeFile::open(path, 4 * elements) : RangeFile();
}

/// Weights by the server's optimizer; SCAFFOLD's control variates by their share of all sites.
class MeanStep {
 public:
  MeanStep(const Coordinator::State& state, int64_t round, double present)
      : optimizer_(state.options.config),
        round_(round),
        size_(state.layout->size()),
        total_(state.layout->total()),
        present_(present),
        x_(open_if_there(state.model_file(state.model_of(round).round), total_)),
        next_x_(state.model_file(round + 1), total_) {
    const int64_t before = state.model_of(round).round;
    if (optimizer_.has_momentum()) {
      m_ = open_if_there(state.moment_file("m", before), size_);
      next_m_.emplace(state.moment_file("m", round + 1), size_);
    }
    if (optimizer_.has_second_moment()) {
      v_ = open_if_there(state.moment_file("v", before), size_);
      next_v_.emplace(state.moment_file("v", round + 1), size_);
    }
  }

  void take(int64_t begin, std::span<const double> update) {
    const int64_t weights =
        std::clamp<int64_t>(size_ - begin, 0, static_cast<int64_t>(update.size()));
    step(begin, update.first(static_cast<size_t>(weights)));
    control(begin + weights, update.subspan(static_cast<size_t>(weights)));
  }

  void finish() {
    next_x_.sync();
    if (next_m_.has_value()) {
      next_m_->sync();
      next_m_->publish();
    }
    if (next_v_.has_value()) {
      next_v_->sync();
      next_v_->publish();
    }
    fault_point("coordinator.written");
    next_x_.publish();
  }
  double norm() const { return std::sqrt(squared_); }

 private:
  void step(int64_t begin, std::span<const double> update) {
    const size_t n = update.size();
    x_values_.resize(n);
    read_or(x_, begin, x_values_, 0.0F);
    m_values_.resize(optimizer_.has_momentum() ? n : 0);
    v_values_.resize(optimizer_.has_second_moment() ? n : 0);
    read_or(m_, begin, m_values_, 0.0F);
    read_or(v_, begin, v_values_, optimizer_.initial_second_moment());
    optimizer_.step(round_ + 1, update, x_values_, m_values_, v_values_);
    next_x_.file().write(begin, std::span<const float>(x_values_));
    if (next_m_.has_value()) {
      next_m_->file().write(begin, std::span<const float>(m_values_));
    }
    if (next_v_.has_value()) {
      next_v_->file().write(begin, std::span<const float>(v_values_));
    }
    for (const double value : update) {
      squared_ += value * value;
    }
  }

  void control(int64_t begin, std::span<const double> update) {
    if (update.empty()) {
      return;
    }
    x_values_.resize(update.size());
    read_or(x_, begin, x_values_, 0.0F);
    for (size_t i = 0; i < update.size(); ++i) {
      x_values_[i] = static_cast<float>(x_values_[i] + present_ * update[i]);
    }
    next_x_.file().write(begin, std::span<const float>(x_values_));
  }

  ServerOptimizer optimizer_;
  int64_t round_;
  int64_t size_;
  int64_t total_;
  double present_;
  RangeFile x_;
  RangeFile m_;
  RangeFile v_;
  NextFile next_x_;
  std::optional<NextFile> next_m_;
  std::optional<NextFile> next_v_;
  std::vector<float> x_values_;
  std::vector<float> m_values_;
  std::vector<float> v_values_;
  double squared_ = 0;
};

/// Elements [offset, offset + count) of one contribution; blocks cover a little more.
std::vector<float> read_tensor(
    const Combiner& combiner, size_t site, int64_t offset, int64_t count, int64_t elements) {
  const int64_t first = offset / kBlock * kBlock;
  const int64_t last = std::min((offset + count + kBlock - 1) / kBlock * kBlock, elements);
  std::vector<float> values(static_cast<size_t>(last - first));
  combiner.read(site, first, values);
  return {values.begin() + (offset - first), values.begin() + (offset - first + count)};
}

/// Whole adapters: the mean of everything, then the factors of each module put in its place.
double combine_factors(const Coordinator::State& state,
                       const Combiner& combiner,
                       RangeFile& next,
                       CombineReport& report) {
  combiner.run([&](int64_t begin, std::span<const double> mean) {
    std::vector<float> values(mean.begin(), mean.end());
    next.write(begin, std::span<const float>(values));
  });
  const auto join = state.options.config.adapters == "svd" ? redistribute : average_factors;
  const int64_t elements = state.layout->total();
  double lost = 0;
  double all = 0;
  for (const FactorPair& pair : factor_pairs(*state.layout)) {
    SiteFactors factors{{}, {}, combiner.shares()};
    for (size_t k = 0; k < factors.shares.size(); ++k) {
      factors.a.push_back(read_tensor(combiner, k, pair.a, pair.rank * pair.in, elements));
      factors.b.push_back(read_tensor(combiner, k, pair.b, pair.rank * pair.out, elements));
    }
    std::vector<float> a(static_cast<size_t>(pair.rank * pair.in));
    std::vector<float> b(static_cast<size_t>(pair.rank * pair.out));
    const auto [gap, whole] = join(pair, factors, a, b);
    next.write(pair.a, std::span<const float>(a));
    next.write(pair.b, std::span<const float>(b));
    lost += gap;
    all += whole;
  }
  report.error = all > 0 ? std::sqrt(std::max(lost, 0.0) / all) : 0.0;
  return std::sqrt(all);
}

/// Whole adapters one after the other; sites form the sum of their products.
void combine_stack(const Coordinator::State& state, const Combiner& combiner, RangeFile& next) {
  const int64_t elements = state.layout->total();
  const int64_t chunk = 64 * kBlock;
  std::vector<float> values;
  for (size_t k = 0; k < combiner.sites().size(); ++k) {
    for (int64_t begin = 0; begin < elements; begin += chunk) {
      values.resize(static_cast<size_t>(std::min(chunk, elements - begin)));
      combiner.read(k, begin, values);
      next.write(static_cast<int64_t>(k) * elements + begin, std::span<const float>(values));
    }
  }
}

}  // namespace

CombineReport combine_updates(const Coordinator::State& state,
                              const std::vector<Contribution>& contributions,
                              int64_t round,
                              const std::optional<privacy::MaskPlan>& masks) {
  const FederationConfig& config = state.options.config;
  const int64_t elements = state.layout->total();
  std::vector<Contribution> measured = contributions;
  for (Contribution& contribution : measured) {
    contribution.norm =
        config.robust.norm_bound > 0 ? check_update(contribution.file, *state.codec, elements) : 0;
  }
  Combiner combiner(config, std::move(measured), elements);
  if (masks.has_value()) {
    combiner.unmask_with(*masks);
  }
  CombineReport report;
  report.sites = combiner.sites();
  report.shares = combiner.shares();
  report.elements = elements;
  fault_point("coordinator.combining");
  if (sends_adapters(config, state.options.lora)) {
    const bool stack = config.adapters == "stack";
    report.elements *= stack ? static_cast<int64_t>(report.sites.size()) : 1;
    NextFile next(state.model_file(round + 1), report.elements);
    if (stack) {
      combine_stack(state, combiner, next.file());
    } else {
      report.update_norm = combine_factors(state, combiner, next.file(), report);
    }
    next.sync();
    fault_point("coordinator.written");
    next.publish();
  } else {
    const auto present = static_cast<double>(report.sites.size()) /
                         static_cast<double>(state.machine.joined().size());
    MeanStep step(state, round, present);
    combiner.run([&](int64_t begin, std::span<const double> update) { step.take(begin, update); });
    step.finish();
    report.update_norm = step.norm();
  }
  fault_point("coordinator.published");
  report.digest = file_digest(state.model_file(round + 1));
  return report;
}

}  // namespace kamerton::federation
