// SPDX-License-Identifier: Apache-2.0
// From a plain fixed-point update to a masked one.
#pragma once

#include <filesystem>

#include "kamerton/comm/group.h"
#include "kamerton/privacy/mask_plan.h"

namespace kamerton::cli {

/// Adds the plan's streams to the 32-bit integers of `plain`, each rank its part; `masked` is made
/// anew. Collective.
void mask_update(const std::filesystem::path& plain,
                 const std::filesystem::path& masked,
                 const privacy::MaskPlan& plan,
                 const comm::Group& ranks);

}  // namespace kamerton::cli
