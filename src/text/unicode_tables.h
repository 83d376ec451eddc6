// SPDX-License-Identifier: Apache-2.0
// Where the reference library's Unicode differs from utf8proc's: its parts are newer or older.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kamerton::text {

/// Characters whose general category utf8proc may not know yet.
struct NewerRange {
  uint32_t first, last;
  int category;  ///< utf8proc_category_t
};
extern const NewerRange kNewer[];
extern const size_t kNewerSize;

/// Flags to take away from and to give to characters: the parts written for BERT are older.
struct OlderRange {
  uint32_t first, last;
  int minus, plus;
};
extern const OlderRange kOlder[];
extern const size_t kOlderSize;

/// Lower case of characters that utf8proc may not know yet: c + delta.
struct LowerRange {
  uint32_t first, last;
  int delta;
};
extern const LowerRange kLowerCase[];
extern const size_t kLowerCaseSize;

/// Combining marks that the normal forms do not know: they keep their place.
struct FormRange {
  uint32_t first, last;
};
extern const FormRange kUnordered[];
extern const size_t kUnorderedSize;

/// Characters that the normal forms do not know to be made of others.
extern const FormRange kUndecomposed[];
extern const size_t kUndecomposedSize;

}  // namespace kamerton::text
