// SPDX-License-Identifier: Apache-2.0
// A round's task from rank 0 to the others.
#pragma once

#include <string>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/federation/coordinator.h"

namespace kamerton::cli {

/// `asked`: sites of the round.
core::Json task_to_json(const federation::Task& task, const std::vector<std::string>& asked);
federation::Task task_from_json(const core::Json& json);

}  // namespace kamerton::cli
