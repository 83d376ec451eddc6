// SPDX-License-Identifier: Apache-2.0
// What people who come from other programs look for.
#pragma once

#include <span>

#include "kamerton/config/load.h"

namespace kamerton::cli {

/// Names of other programs' settings and the keys of a run's file that do the same here. Where one
/// of ours has such a name, in whatever section, it is not in the table.
std::span<const config::NameElsewhere> names_elsewhere();

}  // namespace kamerton::cli
