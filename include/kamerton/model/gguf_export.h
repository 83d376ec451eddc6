// SPDX-License-Identifier: Apache-2.0
// A decoder's weights as one GGUF file for llama.cpp.
#pragma once

#include <string>

#include "kamerton/model/weights.h"
#include "kamerton/storage/gguf_writer.h"

namespace kamerton::model {

struct GgufOptions {
  storage::GgmlType type = storage::GgmlType::F16;  ///< F32, F16, BF16 or Q8_0, of matrices
  std::string name = {};                            ///< general.name
  storage::GgufMetadata vocabulary = {};            ///< tokenizer.* pairs (text/gguf_vocabulary.h)
};

/// Writes `path` (it appears complete or not at all), fetching the parameters one by one; vectors
/// stay F32, and rows that no Q8_0 block divides become F16. llama.cpp knows no sliding window for
/// these architectures: the written context length ends where the window would begin to matter.
/// Throws ErrorKind::Data for an architecture or a setting that llama.cpp's form cannot say,
/// Numeric for a value beyond the type's range or not finite.
void export_gguf(const std::string& path,
                 const Decoder& decoder,
                 const FetchParameter& fetch,
                 const GgufOptions& options);

}  // namespace kamerton::model
