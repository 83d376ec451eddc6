// SPDX-License-Identifier: Apache-2.0
// What verify and prepare need to know of an open data set, in one place.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dataset_impl.h"

namespace kamerton::data {

/// Raw text: every token is trained, an end token need not be.
inline bool is_raw_text(const Dataset::Impl& data, int64_t index) {
  return data.sources.parts()[data.sources.part_of(index)].layout == Layout::Text;
}

/// Whether all of the set is raw text.
inline bool is_all_raw_text(const Dataset::Impl& data) {
  const auto& parts = data.sources.parts();
  return std::all_of(
      parts.begin(), parts.end(), [](const auto& part) { return part.layout == Layout::Text; });
}

inline const Preparer& preparer_of(const Dataset::Impl& data, int64_t index) {
  return data.preparers[data.sources.part_of(index)];
}

}  // namespace kamerton::data
