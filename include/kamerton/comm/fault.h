// SPDX-License-Identifier: Apache-2.0
// A fault on demand, for tests of what happens when a rank dies, hangs or miscounts.
#pragma once

#include <cstdint>
#include <string_view>

namespace kamerton::comm {

enum class FaultAction {
  None,
  Kill,   ///< SIGKILL to the own process
  Stop,   ///< SIGSTOP: the process stays and answers nothing
  Sleep,  ///< for `seconds`
  Nan,    ///< the caller makes its loss not-a-number
  Flip,   ///< the caller flips one bit of a weight
};

struct Fault {
  FaultAction action = FaultAction::None;
  int rank = -1;      ///< -1: every rank
  int64_t step = -1;  ///< -1: every step
  double seconds = 10;
};

/// "kill:rank=1:step=7", "sleep:rank=0:step=3:seconds=2", "nan:step=5"; empty: none. Throws
/// ErrorKind::Config.
Fault parse_fault(std::string_view text);

/// To be called once at the start of every optimizer step. Kill, Stop and Sleep are carried out
/// when rank and step match; Nan and Flip are returned for the caller to do.
FaultAction fault_at_step(const Fault& fault, int rank, int64_t step);

}  // namespace kamerton::comm
