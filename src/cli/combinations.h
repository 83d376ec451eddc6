// SPDX-License-Identifier: Apache-2.0
// Choices of different sections that exclude each other.
#pragma once

#include "run_config.h"

namespace kamerton::cli {

/// Throws ErrorKind::Config that names both and says why.
void refuse_combinations(const RunConfig& config);

/// What a federated run cannot do. Throws ErrorKind::Config.
void refuse_in_federation(const RunConfig& config);

}  // namespace kamerton::cli
