// SPDX-License-Identifier: Apache-2.0
// Local work that all ranks must get through, or none.
#pragma once

#include <exception>

#include "kamerton/comm/group.h"

namespace kamerton::checkpoint {

/// Collective. `mine`: what this rank's work threw, or nullptr. When a rank failed, all throw the
/// failure of the lowest such rank, with its kind and text.
void agree(const comm::Group& group, std::exception_ptr mine);

/// Runs `body` (which must not use the group) and agrees on its outcome.
template <typename Body>
void together(const comm::Group& group, Body&& body) {
  std::exception_ptr mine;
  try {
    body();
  } catch (...) {
    mine = std::current_exception();
  }
  agree(group, mine);
}

}  // namespace kamerton::checkpoint
