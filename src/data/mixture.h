// SPDX-License-Identifier: Apache-2.0
// How often each source of a mixture is drawn, and which example comes when.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kamerton::data {

/// A source as the mixture sees it.
struct MixturePart {
  int64_t size = 0;  ///< examples
  std::optional<double> weight = std::nullopt;
};

/// An epoch has as many elements as there are examples. Of these a source has the share weight /
/// sum of weights, or size^(1/T) / sum of those: as whole numbers by largest remainders, at least
/// one. A source goes on in its next epoch where it stopped in the last one, each of its examples
/// once before any comes again. Immutable.
class Mixture {
 public:
  /// One source: all its examples in each epoch.
  explicit Mixture(int64_t size);
  /// All parts have a weight, or none.
  Mixture(std::span<const MixturePart> parts, double temperature);

  int64_t size() const { return size_; }
  /// Elements of source `part` in an epoch.
  int64_t count(size_t part) const { return parts_[part].count; }

  /// The example that element `position` of epoch `epoch` is; examples are numbered source after
  /// source. A pure function.
  int64_t example(int64_t epoch, int64_t position, uint64_t seed, bool shuffle) const;

 private:
  struct Part {
    int64_t first = 0;  ///< number of its first example
    int64_t size = 0;
    int64_t slot = 0;  ///< of its first element among those of an unshuffled epoch
    int64_t count = 0;
  };
  void count_parts(std::vector<double> shares);

  std::vector<Part> parts_;
  int64_t size_ = 0;
  bool even_ = true;  ///< every source has just its examples
};

}  // namespace kamerton::data
