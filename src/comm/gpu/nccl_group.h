// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "group_impl.h"

namespace kamerton::comm {

/// Device tensors by NCCL, host tensors by `host`. Collective over `host`. Uses the current device
/// of the thread.
std::shared_ptr<GroupImpl> make_nccl_group(std::shared_ptr<GroupImpl> host, double deadline_s);

}  // namespace kamerton::comm
