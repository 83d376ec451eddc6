// SPDX-License-Identifier: Apache-2.0
// A model whose tensors come from disk one at a time: for writing it in another form.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "kamerton/model/decoder.h"
#include "kamerton/model/weights.h"

namespace kamerton::cli {

struct StreamedModel {
  std::shared_ptr<model::Decoder> decoder;  ///< no memory behind its parameters
  std::string folder;                       ///< holds the tokenizer
  model::FetchParameter fetch;              ///< whole, fp32; adapters are merged in
};

/// The tensors of a Hugging Face folder.
StreamedModel stream_folder(const std::string& folder);

/// The state of a checkpoint (or of a run's newest) over its base model. `base`: that model's
/// folder; empty: as the run's config says. `average`: the moving average of the weights.
StreamedModel stream_checkpoint(const std::filesystem::path& checkpoint,
                                const std::string& base,
                                bool average = false);

}  // namespace kamerton::cli
