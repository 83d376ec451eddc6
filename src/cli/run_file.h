// SPDX-License-Identifier: Apache-2.0
// The run's file, which the commands of a federation take alike.
#pragma once

#include "command.h"
#include "run_config.h"

namespace kamerton::cli {

/// RUN.yaml and --set KEY=VALUE.
void add_run_file(po::options_description& options, po::positional_options_description& positional);
/// What they say, checked for a federation too. Throws ErrorKind::Config.
RunConfig federated_run(const po::variables_map& arguments, const Command& self);

}  // namespace kamerton::cli
