// SPDX-License-Identifier: Apache-2.0
// Weights from disk, slice by slice, and back to a Hugging Face directory.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/model/decoder.h"

namespace kamerton::model {

/// Gives any slice of any base parameter, so that each ZeRO rank reads only what it keeps. Thread
/// safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// Fills out_1d (fp32 or bf16, contiguous) with elements [offset, offset + out_1d.numel()) of the
  /// flattened parameter. Throws ErrorKind::Numeric naming the tensor when a value read is NaN or
  /// infinite.
  virtual void read(const tensor::Parameter& parameter,
                    int64_t offset,
                    at::Tensor out_1d) const = 0;
};

/// The options' source: the safetensors of options.path, or seeded random numbers with random_init.
/// Checks the names and shapes of all base parameters at once (ErrorKind::Data: missing,
/// unexpected, wrong shape; known buffers such as rotary inv_freq are tolerated).
std::unique_ptr<WeightSource> open_weights(const ModelOptions& options, const Decoder& decoder);

/// Gives a base parameter whole, in any floating type (a sharded owner gathers here: all ranks call
/// alike).
using FetchParameter = std::function<at::Tensor(const tensor::Parameter&)>;

struct SaveOptions {
  at::ScalarType dtype = at::kFloat;
  int64_t max_shard_bytes = int64_t{5} << 30;
  /// Tokenizer files and others copied from here when present ("" : none).
  std::string copy_from = {};
  bool writes = true;  ///< false: takes part in the fetches only (ranks other than 0)
};

/// config.json, generation_config.json, model.safetensors (sharded with an index above
/// max_shard_bytes), copied tokenizer files. Parameters are fetched one at a time, in unit order; a
/// tied head is not written.
void save_model(const std::string& directory,
                const Decoder& decoder,
                const FetchParameter& fetch,
                const SaveOptions& options);
/// For a model placed whole.
void save_model(const std::string& directory, const Decoder& decoder, const SaveOptions& options);

}  // namespace kamerton::model
