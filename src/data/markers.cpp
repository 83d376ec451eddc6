// SPDX-License-Identifier: Apache-2.0
#include "markers.h"

#include <algorithm>
#include <cstdint>

#include "kamerton/text/bundle.h"

namespace kamerton::data {
namespace {

constexpr const char* kForeign[] = {"<|im_start|>",
                                    "<|im_end|>",
                                    "[INST]",
                                    "[/INST]",
                                    "<<SYS>>",
                                    "<start_of_turn>",
                                    "<end_of_turn>",
                                    "<|eot_id|>",
                                    "<|start_header_id|>",
                                    "<|begin_of_text|>",
                                    "<|endoftext|>",
                                    "<|user|>",
                                    "<|assistant|>",
                                    "<|system|>",
                                    "<|start_of_role|>",
                                    "<|end_of_text|>"};

int start_of(std::string_view text, size_t at) {
  return static_cast<uint8_t>(text[at]) << 8 | static_cast<uint8_t>(text[at + 1]);
}

}  // namespace

MarkerFinder::MarkerFinder(const text::TokenizerBundle& bundle) {
  std::vector<std::string> own;
  for (const auto& [id, content] : bundle.tokenizer.added_tokens()) {
    own.push_back(content);
    if (bundle.tokenizer.is_special(id)) {
      add(content, true);
    }
  }
  for (const char* marker : kForeign) {
    if (std::find(own.begin(), own.end(), marker) == own.end()) {
      add(marker, false);
    }
  }
}

void MarkerFinder::add(const std::string& marker, bool special) {
  if (marker.size() < 2) {
    return;
  }
  by_start_[start_of(marker, 0)].emplace_back(marker, special);
  if (starts_.find(marker[0]) == std::string::npos) {
    starts_ += marker[0];
  }
}

MarkersSeen MarkerFinder::find(std::string_view text) const {
  MarkersSeen seen;
  for (size_t at = text.find_first_of(starts_);
       at != std::string_view::npos && at + 1 < text.size();
       at = text.find_first_of(starts_, at + 1)) {
    const auto group = by_start_.find(start_of(text, at));
    if (group == by_start_.end()) {
      continue;
    }
    for (const auto& [marker, special] : group->second) {
      if (text.substr(at).starts_with(marker)) {
        (special ? seen.special : seen.foreign) = true;
      }
    }
  }
  return seen;
}

}  // namespace kamerton::data
