// SPDX-License-Identifier: Apache-2.0
// The feed-forward part of a sparse layer: a router and experts.
#pragma once

#include <memory>

#include "feed_forward.h"

namespace kamerton::model {

/// Declares router and experts of layer `index`, whose names begin with `at`, into `unit`.
std::unique_ptr<FeedForward> make_experts(const DecoderConfig& config,
                                          int64_t index,
                                          const std::string& at,
                                          tensor::ParamUnit& unit);

}  // namespace kamerton::model
