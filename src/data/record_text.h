// SPDX-License-Identifier: Apache-2.0
// The texts of a record, whatever its layout.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "kamerton/data/example.h"

namespace kamerton::data {

enum class Speaker { System, User, Assistant, Other, Document };

using VisitText = std::function<void(Speaker speaker, std::string_view text)>;

/// Every text in order: contents of messages (parts of {"type": "text"} too), prompt and completion
/// (User, Assistant), or the document.
void visit_texts(const Record& record, const VisitText& visit);

/// Whether an answer of the record says nothing: no text and no call of a tool.
bool has_empty_answer(const Record& record);

/// What two records are compared by: all texts but the system's, which is often the same for all.
std::string comparable_text(const Record& record);

}  // namespace kamerton::data
