// SPDX-License-Identifier: Apache-2.0
// What the readers of the layouts share.
#pragma once

#include <string>

#include "kamerton/core/json.h"
#include "kamerton/data/example.h"

namespace kamerton::data {

/// ErrorKind::Data at `origin` ("file:line").
[[noreturn]] void complain(const std::string& origin,
                           const std::string& what,
                           const std::string& got = {},
                           const std::string& allowed = {});

/// The column, nullptr when it is missing or null.
const core::Json* column(const core::Json& json, const char* name);
/// ErrorKind::Data when the column is not text.
std::string text_column(const core::Json& json, const char* name, const std::string& origin);
/// The same; empty when the column is missing.
std::string optional_text(const core::Json& json, const char* name, const std::string& origin);

/// Refuses what is not a list of {role, content}.
void check_messages(const core::Json& messages, const char* name, const std::string& origin);
core::Json message(const char* role, std::string content);
/// {role, content} of ShareGPT's {from, value}; a call of a function becomes tool_calls.
core::Json sharegpt_message(const core::Json& turn, const std::string& place);

/// Template variables that come with a record: tools (a list, or the JSON text of one), documents,
/// others.
core::Json template_variables(const core::Json& json, const std::string& origin);

Record chat_record(core::Json messages,
                   core::Json variables,
                   int64_t prompt,
                   const std::string& origin);
Record text_record(std::string prompt,
                   std::string completion,
                   Record::Kind kind,
                   const std::string& origin);

/// prompt, chosen, rejected: the record is prompt and chosen, Record::rejected prompt and rejected.
Record from_preference(const core::Json& json, const std::string& origin);
/// prompt, completion, label.
Record from_unpaired(const core::Json& json, const std::string& origin);
/// prompt, completions (the steps) and labels (true or false, one a step).
Record from_steps(const core::Json& json, const std::string& origin);
/// prompt alone; `answer`, when it is text, is what is expected.
Record from_prompt(const core::Json& json, const std::string& origin);
/// prompt and completion, as two texts or two lists of messages.
Record from_pair(const core::Json& json, const std::string& origin);

}  // namespace kamerton::data
