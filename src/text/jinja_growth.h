// SPDX-License-Identifier: Apache-2.0
// A proof, from a template's structure alone, that conversations only grow at their end.
#pragma once

#include "jinja_ast.h"

namespace kamerton::text::jinja {

/// The template's one loop over the messages, where it is proved that for every k the text of the
/// first k messages is what the whole's rendering has written when iteration k ends, followed by
/// what stands behind the loop, which no message can change. Null where that is not proved.
///
/// Allowed are: messages[0] and messages[1:] before the loop; in the loop the message, what the
/// loop has seen so far (index, first, previtem), namespaces; behind it nothing that depends on
/// messages. Anything that looks ahead (loop.last, messages[-1], messages | length) is not.
const Node* growing_loop(const Template& parsed);

}  // namespace kamerton::text::jinja
