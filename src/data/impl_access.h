// SPDX-License-Identifier: Apache-2.0
// What verify and prepare need to know of an open data set, in one place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "dataset_impl.h"

namespace kamerton::data {

/// Raw text: every token is trained, an end token need not be.
inline bool is_raw_text(const Dataset::Impl& data, int64_t) {
  return data.sources.layout() == Layout::Text;
}

/// Whether all of the set is raw text.
inline bool is_all_raw_text(const Dataset::Impl& data) {
  return data.sources.layout() == Layout::Text;
}

inline const Preparer& preparer_of(const Dataset::Impl& data, int64_t) {
  return data.preparer;
}

}  // namespace kamerton::data
