// SPDX-License-Identifier: Apache-2.0
// Ranks as threads of one process: collective logic under test without mpirun.
#pragma once

#include <functional>

#include "kamerton/comm/group.h"

namespace kamerton::comm {

/// Runs `body` on `size` threads, each with its Group of that size; returns when all are done. When
/// one throws, the others' collectives throw ErrorKind::Comm (no deadlock) and the first exception
/// (lowest rank that failed by itself) is rethrown.
void run_local(int size, const std::function<void(Group)>& body);

}  // namespace kamerton::comm
