// SPDX-License-Identifier: Apache-2.0
// Time that a test can turn by hand.
#pragma once

#include <chrono>

namespace kamerton::core {

/// Seconds since an arbitrary start; never runs backwards.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual double now_s() const = 0;
};

/// The machine's monotonic clock.
class SteadyClock : public Clock {
 public:
  double now_s() const override {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

}  // namespace kamerton::core
