// SPDX-License-Identifier: Apache-2.0
// Which unit comes next: learnt from the last training pass, so that it can be gathered ahead of
// its use.
#pragma once

#include <cstddef>
#include <vector>

namespace kamerton::optim {

/// A guess, never a condition: a wrong one costs a gather, and since all ranks see the same calls
/// they guess alike.
class TravelOrder {
 public:
  explicit TravelOrder(int num_units);

  /// A forward + backward follows; its order replaces what was known.
  void begin_training_pass();
  /// Notes the use of `unit`; returns the unit expected after it, or -1.
  int forward(int unit);
  int backward(int unit);
  /// How often a backward pass uses `unit`, by the last one.
  int backward_uses(int unit) const;
  /// True when the last noted forward use was the last one of a pass.
  bool forward_ended() const { return forward_.ended(); }

 private:
  struct Direction {
    std::vector<int> order;
    std::vector<int> seen;  ///< of the training pass under way
    size_t cursor = 0;      ///< position after the last noted use
    bool ended() const { return cursor == order.size(); }
    int note(int unit);
    void adopt();
  };
  Direction forward_;
  Direction backward_;
  bool training_ = false;  ///< in the forward part of a training pass
};

}  // namespace kamerton::optim
