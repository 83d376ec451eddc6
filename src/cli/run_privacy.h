// SPDX-License-Identifier: Apache-2.0
// Privacy of records in a run: what it excludes, and its parts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kamerton/comm/group.h"
#include "kamerton/train/record_privacy.h"

#include "run_config.h"

namespace kamerton::cli {

/// Refuses what would make a record count more than once, or its gradient not its own. Pure. Throws
/// ErrorKind::Config.
void check_privacy(const RunConfig& config);

/// What records of a federation need beside that. Pure. Throws ErrorKind::Config.
void check_federated_privacy(const RunConfig& config);

/// nullopt where records are not hidden. Collective; errors as train::RecordPrivacy.
std::optional<train::RecordPrivacy> open_privacy(const RunConfig& config,
                                                 int64_t records,
                                                 const std::string& data_digest,
                                                 int64_t total_steps,
                                                 const comm::Group& world);

}  // namespace kamerton::cli
