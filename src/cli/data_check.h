// SPDX-License-Identifier: Apache-2.0
// What a run looks for in its data before it starts.
#pragma once

#include "kamerton/data/dataset.h"

namespace kamerton::cli {

/// The cheap part of `data verify`, as data.verify says: warnings are logged; errors (strict:
/// warnings, too) throw ErrorKind::Data with place and remedy. One rank is enough.
void check_data(const data::DataConfig& config,
                const data::Dataset& train,
                const data::Dataset* eval);

}  // namespace kamerton::cli
