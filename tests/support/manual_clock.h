// SPDX-License-Identifier: Apache-2.0
// A clock that stands until the test turns it.
#pragma once

#include <atomic>

#include "kamerton/core/clock.h"

namespace kamerton::support {

class ManualClock : public core::Clock {
 public:
  double now_s() const override { return now_; }
  void advance(double seconds) { now_ = now_ + seconds; }  ///< by one thread

 private:
  std::atomic<double> now_ = 1000.0;
};

}  // namespace kamerton::support
