// SPDX-License-Identifier: Apache-2.0
// What the stream and the count of its steps share.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kamerton/data/config.h"
#include "kamerton/data/stream.h"

#include "row_source.h"
#include "window_rows.h"

namespace kamerton::data {

/// nullopt: rows are taken from the stream as it comes (Lanes).
std::optional<WindowStrategy> window_strategy(const DataConfig& config);

/// steps_for_epochs for any order.
int64_t count_steps(const DataConfig& config,
                    const SampleOrder& order,
                    double epochs,
                    std::span<const int32_t> lengths,
                    int64_t sequence_length);

}  // namespace kamerton::data
