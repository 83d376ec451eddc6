// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/fault.h"

#include <charconv>
#include <chrono>
#include <map>
#include <string>
#include <thread>

#include <signal.h>
#include <unistd.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

[[noreturn]] void refuse(std::string_view text, std::string what) {
  throw core::Error(core::ErrorKind::Config,
                    {.where = "comm.fault",
                     .what = std::move(what),
                     .got = "'" + std::string(text) + "'",
                     .allowed = "kill|stop|sleep|nan|flip[:rank=N][:step=N][:seconds=X]"});
}

std::string_view next_part(std::string_view& rest) {
  const size_t end = rest.find(':');
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return part;
}

template <class Number>
Number number(std::string_view text, std::string_view all) {
  Number value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size() || value < 0) {
    refuse(all, "a number of the fault cannot be read");
  }
  return value;
}

}  // namespace

Fault parse_fault(std::string_view text) {
  static const std::map<std::string_view, FaultAction> kActions = {
      {"kill", FaultAction::Kill},
      {"stop", FaultAction::Stop},
      {"sleep", FaultAction::Sleep},
      {"nan", FaultAction::Nan},
      {"flip", FaultAction::Flip},
  };
  Fault fault;
  if (text.empty()) {
    return fault;
  }
  std::string_view rest = text;
  const auto action = kActions.find(next_part(rest));
  if (action == kActions.end()) {
    refuse(text, "no such fault");
  }
  fault.action = action->second;
  while (!rest.empty()) {
    const std::string_view part = next_part(rest);
    if (part.starts_with("rank=")) {
      fault.rank = number<int>(part.substr(5), text);
    } else if (part.starts_with("step=")) {
      fault.step = number<int64_t>(part.substr(5), text);
    } else if (part.starts_with("seconds=")) {
      fault.seconds = number<double>(part.substr(8), text);
    } else {
      refuse(text, "a part of the fault is unknown");
    }
  }
  return fault;
}

FaultAction fault_at_step(const Fault& fault, int rank, int64_t step) {
  const bool due = (fault.rank < 0 || fault.rank == rank) && (fault.step < 0 || fault.step == step);
  if (fault.action == FaultAction::None || !due) {
    return FaultAction::None;
  }
  if (fault.action == FaultAction::Kill) {
    kill(getpid(), SIGKILL);
  } else if (fault.action == FaultAction::Stop) {
    kill(getpid(), SIGSTOP);
  } else if (fault.action == FaultAction::Sleep) {
    std::this_thread::sleep_for(std::chrono::duration<double>(fault.seconds));
  }
  return fault.action;
}

}  // namespace kamerton::comm
