// SPDX-License-Identifier: Apache-2.0
// LoRA factors of several sites as one: the sum of products p_k B_k A_k, cut back to the rank
// (FlexLoRA, arXiv 2402.11505), or factors averaged apart.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "kamerton/federation/layout.h"

namespace kamerton::federation {

/// Where the two factors of a module lie in the exchanged vector.
struct FactorPair {
  std::string module;
  int64_t a = 0;  ///< offset of A [rank, in]
  int64_t b = 0;  ///< offset of B [out, rank]
  int64_t rank = 0;
  int64_t in = 0;
  int64_t out = 0;
};

/// All "<module>.lora_A.weight" with their "<module>.lora_B.weight"; ErrorKind::Data when one is
/// missing or their shapes do not fit.
std::vector<FactorPair> factor_pairs(const Layout& layout);

/// Of one module: A and B of every site, row-major, and the share of each site.
struct SiteFactors {
  std::vector<std::vector<float>> a;
  std::vector<std::vector<float>> b;
  std::vector<double> shares;
};

/// Writes the best rank-`pair.rank` factors of sum p_k B_k A_k (balanced: both carry the root of
/// the singular values); returns {squared norm of what was cut off, squared norm of the sum}.
/// Computed in double by QR of the stacked factors and an SVD of their small core.
std::pair<double, double> redistribute(const FactorPair& pair,
                                       const SiteFactors& sites,
                                       std::span<float> a,
                                       std::span<float> b);

/// Averages A and B apart; returns {squared norm of (sum p_k B_k A_k - mean B mean A), squared norm
/// of the sum}: the error that this makes.
std::pair<double, double> average_factors(const FactorPair& pair,
                                          const SiteFactors& sites,
                                          std::span<float> a,
                                          std::span<float> b);

}  // namespace kamerton::federation
