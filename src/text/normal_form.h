// SPDX-License-Identifier: Apache-2.0
// Unicode normalization (UAX #15) that keeps alignment.
#pragma once

#include "aligned_text.h"

namespace kamerton::text {

enum class NormalForm { NFC, NFD, NFKC, NFKD };

/// Brings the text into a normal form. Linear; a text that is in it already is not copied.
void normalize(AlignedText& text, NormalForm form);

}  // namespace kamerton::text
