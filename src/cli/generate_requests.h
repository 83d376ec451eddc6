// SPDX-License-Identifier: Apache-2.0
// Many prompts at once, each through an adapter of its own.
#pragma once

#include <string>

#include "kamerton/model/generate.h"
#include "kamerton/text/bundle.h"

#include "command.h"

namespace kamerton::cli {

/// Answers the lines of `file` ({"prompt": ..., "adapter": NAME or absent}) in batches that mix the
/// adapters of --mix NAME=DIR; one JSON line each to stdout, in their order. chat: a prompt is
/// rendered as a user's message.
void generate_requests(const po::variables_map& arguments,
                       const std::string& model_dir,
                       const std::string& file,
                       const text::TokenizerBundle& bundle,
                       const model::SampleOptions& options,
                       bool chat);

}  // namespace kamerton::cli
