// SPDX-License-Identifier: Apache-2.0
// One data set cut into simulated sites.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/federation/config.h"

namespace kamerton::federation {

/// Which record goes where: an index of a site for each. `labels`: one a record for kind dirichlet
/// (Hsu et al., arXiv 1909.06335: each label is spread over sites by a draw from Dir(alpha)), else
/// empty. size: sites' sizes are a draw from Dir(alpha). Every record has one site, every site at
/// least min_examples. The same for the same seed. ErrorKind::Config when there are too few
/// records.
std::vector<int64_t> partition(const PartitionConfig& config,
                               int64_t records,
                               const std::vector<std::string>& labels,
                               uint64_t seed);

/// Cuts JSON lines files; writes <folder>/site-000.jsonl, ... and returns the sites.
/// ErrorKind::Data for a record without the label, ErrorKind::Config as partition().
std::vector<SiteConfig> write_partition(const PartitionConfig& config,
                                        const std::vector<std::string>& files,
                                        const std::filesystem::path& folder,
                                        uint64_t seed);

}  // namespace kamerton::federation
