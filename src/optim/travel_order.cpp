// SPDX-License-Identifier: Apache-2.0
#include "travel_order.h"

#include <algorithm>

namespace kamerton::optim {

TravelOrder::TravelOrder(int num_units) {
  for (int unit = 0; unit < num_units; ++unit) {
    forward_.order.push_back(unit);
    backward_.order.push_back(num_units - 1 - unit);
  }
}

int TravelOrder::Direction::note(int unit) {
  auto found = std::find(order.begin() + static_cast<std::ptrdiff_t>(cursor), order.end(), unit);
  const bool known = found != order.end();
  if (!known) {
    // A new pass, or a use that is not known yet: nothing is gathered ahead on so weak a hint.
    found = std::find(order.begin(), order.end(), unit);
  }
  if (found == order.end()) {
    return -1;
  }
  ++found;
  cursor = static_cast<size_t>(found - order.begin());
  return known && found != order.end() ? *found : -1;
}

void TravelOrder::Direction::adopt() {
  if (!seen.empty()) {
    order = seen;
  }
  seen.clear();
  cursor = 0;
}

void TravelOrder::begin_training_pass() {
  backward_.adopt();
  forward_.seen.clear();
  forward_.cursor = 0;
  training_ = true;
}

int TravelOrder::backward_uses(int unit) const {
  return static_cast<int>(std::count(backward_.order.begin(), backward_.order.end(), unit));
}

int TravelOrder::forward(int unit) {
  if (training_) {
    forward_.seen.push_back(unit);
  }
  const int next = forward_.note(unit);
  const bool turns = training_ && forward_.ended() && !backward_.order.empty();
  return turns ? backward_.order.front() : next;
}

int TravelOrder::backward(int unit) {
  if (training_) {
    forward_.adopt();
    training_ = false;
  }
  backward_.seen.push_back(unit);
  return backward_.note(unit);
}

}  // namespace kamerton::optim
