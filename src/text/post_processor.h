// SPDX-License-Identifier: Apache-2.0
// The "post_processor" of a tokenizer.json, for single texts: tokens put around them, and offsets
// trimmed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kamerton/core/json.h"

namespace kamerton::text {

struct PostProcessor {
  std::vector<int32_t> before, after;  ///< ids around the text's
  bool trim_offsets = false;           ///< leave spaces at a token's edges out of its offsets
  bool keeps_first_space = false;      ///< one leading space of the first token was added, not read

  static PostProcessor from_json(const core::Json& json, const std::string& origin);

 private:
  void add(const core::Json& json, const std::string& origin, int depth);
  void add_template(const core::Json& json, const std::string& origin);
  void add_pair(const core::Json& json, const std::string& origin);
};

}  // namespace kamerton::text
