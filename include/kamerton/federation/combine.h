// SPDX-License-Identifier: Apache-2.0
// From the updates of a round to one, in the order of the sites' names: the same bits whatever
// order they arrived in. No more than a chunk of every update is in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kamerton/federation/codec.h"
#include "kamerton/federation/config.h"
#include "kamerton/privacy/mask_plan.h"

namespace kamerton::federation {

struct Contribution {
  std::string site;
  double weight = 1;           ///< targets, examples or 1; above 0
  double norm = 0;             ///< as check_update() found it
  std::filesystem::path file;  ///< encoded
};

/// Reads a whole encoded update: its 2-norm, or ErrorKind::Data when it is not what the codec
/// writes. `elements` is the size of the vector.
double check_update(const std::filesystem::path& file, const Codec& codec, int64_t elements);

/// mean: the weighted mean, robust.norm_bound applied to each update before. median, trimmed_mean:
/// by coordinate, unweighted. krum: the update with the least sum of squared distances to its
/// n - f - 2 nearest (arXiv 1703.02757); multi_krum: the plain mean of the n - f best. ring32:
/// integers added in Z_2^32, divided once.
class Combiner {
 public:
  /// ErrorKind::Config when there are too few contributions for the rule.
  Combiner(const FederationConfig& config,
           std::vector<Contribution> contributions,
           int64_t elements);
  ~Combiner();

  /// ring32: what is applied to the sum of masked updates to get the plain one.
  void unmask_with(privacy::MaskPlan plan);
  /// Sites in force, in order; krum names one.
  std::vector<std::string> sites() const;
  /// A share of the weights in force, in the order of sites(); they add up to 1.
  std::vector<double> shares() const;
  /// Calls `take` with consecutive pieces of the combined update; every piece begins at a multiple
  /// of kBlock.
  using Take = std::function<void(int64_t begin, std::span<const double> update)>;
  void run(const Take& take) const;
  /// Elements [begin, begin + out.size()) of one contribution, begin a multiple of kBlock.
  void read(size_t site, int64_t begin, std::span<float> out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::federation
