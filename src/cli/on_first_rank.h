// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "kamerton/comm/group.h"

namespace kamerton::cli {

/// Does `work` on rank 0; every rank throws what it threw. Collective.
void on_first_rank(const comm::Group& ranks, const std::function<void()>& work);

}  // namespace kamerton::cli
