// SPDX-License-Identifier: Apache-2.0
#include "on_first_rank.h"

#include <string>

#include "kamerton/core/error.h"

namespace kamerton::cli {

void on_first_rank(const comm::Group& ranks, const std::function<void()>& work) {
  std::string fault;
  int64_t kind = 0;
  if (ranks.rank() == 0) {
    try {
      work();
    } catch (const core::Error& error) {
      fault = error.what();
      kind = static_cast<int64_t>(error.kind());
    }
  }
  fault = ranks.broadcast(fault, 0);
  kind = ranks.max(kind);
  if (!fault.empty()) {
    throw core::Error(static_cast<core::ErrorKind>(kind), fault);
  }
}

}  // namespace kamerton::cli
