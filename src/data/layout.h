// SPDX-License-Identifier: Apache-2.0
// Records of the common layouts, made one form.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "kamerton/core/json.h"
#include "kamerton/data/example.h"

namespace kamerton::data {

enum class Layout {
  Text,
  Messages,
  PromptCompletion,
  Alpaca,
  ShareGpt,
  Preference,          ///< prompt (or a common beginning), chosen, rejected
  UnpairedPreference,  ///< prompt, completion, label
  Prompt,              ///< prompt alone
  Stepwise             ///< prompt, completions, labels
};

/// Whether records compare or judge answers, which a loss on tokens alone cannot use.
inline bool is_preference(Layout layout) {
  return layout == Layout::Preference || layout == Layout::UnpairedPreference;
}

std::string_view name_of(Layout layout);
/// ErrorKind::Config for an unknown name.
Layout layout_from(const std::string& name);

/// By the columns; nullopt when they fit none.
std::optional<Layout> detect_layout(const core::Json& record);
/// "columns 'a', 'b'" for messages (names only, never values).
std::string describe_columns(const core::Json& record);

/// One JSON record. ErrorKind::Data naming `origin` ("file:line"), never with text of the record.
core::Json parse_record(std::string_view text, const std::string& origin, size_t max_bytes);

/// The record in common form. `chat`: whether alpaca records become conversations (there is a chat
/// template) or text. ErrorKind::Data naming origin and column when a column is missing or of
/// another type.
Record to_record(const core::Json& json, Layout layout, bool chat, const std::string& origin);

}  // namespace kamerton::data
