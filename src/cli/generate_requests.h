// SPDX-License-Identifier: Apache-2.0
// Many prompts at once, each through an adapter of its own.
#pragma once

#include <optional>
#include <string>

#include "kamerton/core/json.h"
#include "kamerton/model/generate.h"
#include "kamerton/text/bundle.h"

#include "command.h"

namespace kamerton::cli {

/// Answers the lines of `file` ({"prompt": ..., "adapter": NAME or absent}) in batches that mix the
/// adapters of --mix NAME=DIR; one JSON line each to stdout, in their order. `opening`: what a
/// conversation starts with, the prompt follows as a user's message; nullopt: the prompt is
/// continued.
void generate_requests(const po::variables_map& arguments,
                       const std::string& model_dir,
                       const std::string& file,
                       const text::TokenizerBundle& bundle,
                       const model::SampleOptions& options,
                       const std::optional<core::Json>& opening);

}  // namespace kamerton::cli
