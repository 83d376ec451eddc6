// SPDX-License-Identifier: Apache-2.0
#include "finder.h"

namespace kamerton::text {

int32_t Finder::find_child(int32_t node, char byte) const {
  int32_t child = nodes_[static_cast<size_t>(node)].child;
  while (child >= 0 && nodes_[static_cast<size_t>(child)].byte != byte) {
    child = nodes_[static_cast<size_t>(child)].sibling;
  }
  return child;
}

void Finder::insert(std::string_view text, int32_t value) {
  if (text.empty()) {
    return;
  }
  first_[static_cast<unsigned char>(text[0])] = 1;
  int32_t node = 0;
  for (const char byte : text) {
    int32_t child = find_child(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back({-1, -1, nodes_[static_cast<size_t>(node)].child, byte});
      nodes_[static_cast<size_t>(node)].child = child;
    }
    node = child;
  }
  if (nodes_[static_cast<size_t>(node)].value < 0) {
    nodes_[static_cast<size_t>(node)].value = value;
  }
}

int32_t Finder::longest(std::string_view s, size_t at, size_t& length) const {
  int32_t best = -1;
  int32_t node = 0;
  for (size_t i = at; i < s.size(); ++i) {
    node = find_child(node, s[i]);
    if (node < 0) {
      break;
    }
    if (nodes_[static_cast<size_t>(node)].value >= 0) {
      best = nodes_[static_cast<size_t>(node)].value;
      length = i + 1 - at;
    }
  }
  return best;
}

}  // namespace kamerton::text
