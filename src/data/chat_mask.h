// SPDX-License-Identifier: Apache-2.0
// Which bytes of a rendered conversation the assistant says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/text/chat_template.h"

namespace kamerton::data {

using Span = std::pair<size_t, size_t>;

/// A conversation as text, and what the assistant says in it: disjoint, in order.
struct MaskedChat {
  std::string text;
  std::vector<Span> assistant;
};

/// With the template's {% generation %} marks where it has them. Else from two renderings where the
/// template is proved to grow only (ChatTemplate::grows()), or by rendering each conversation up to
/// and including each assistant turn: every such rendering must be a prefix of the whole, which
/// proves the spans; otherwise ErrorKind::Data. Line ends after the marker that
/// closes a turn are not the assistant's.
MaskedChat mask_chat(const text::ChatTemplate& chat_template,
                     const core::Json& messages,
                     const core::Json& variables,
                     const text::RenderOptions& options,
                     const std::string& origin);

/// Sets trained[i] for the tokens of each span: from the first that overlaps it to the last.
/// `offsets`: byte range of each token, in order.
void mark_spans(const std::vector<Span>& spans,
                const std::vector<std::pair<int64_t, int64_t>>& offsets,
                std::vector<uint8_t>& trained);

}  // namespace kamerton::data
