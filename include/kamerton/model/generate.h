// SPDX-License-Identifier: Apache-2.0
// Generation with cached keys and values, for many prompts at once.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kamerton/model/decoder.h"

namespace kamerton::model {

struct SampleOptions {
  int64_t max_new_tokens = 128;
  double temperature = 0.0;  ///< 0: the most likely token
  int64_t top_k = 0;         ///< 0: all
  double top_p = 1.0;
  double repetition_penalty =
      1.0;  ///< of tokens seen in prompt or answer (Keskar et al. 2019), 1: none
  std::vector<int64_t> stop_ids;  ///< empty: the model's eos ids
  bool ignore_stop = false;       ///< always max_new_tokens (benchmarks)
  uint64_t seed = 0;
  std::vector<uint64_t> keys = {};  ///< what draws of each prompt are keyed by; empty: its number
  int64_t vocab_limit =
      0;  ///< ids at and above are never produced (padding rows); 0: the vocabulary
  int64_t max_batch_tokens = 8192;  ///< prompt tokens computed at once
  int64_t max_sequences = 64;  ///< sequences decoded at once; further prompts wait for a free place
  /// Called before each forward with the prompt of every document and the documents' offsets (to
  /// choose an adapter for each).
  std::function<void(const std::vector<size_t>&, const std::vector<int64_t>&)> before_forward = {};
};

struct Generated {
  std::vector<int64_t> tokens;  ///< new ones only, without the stop token
  bool stopped = false;         ///< at a stop id; false: by length
  int64_t stop_id = -1;         ///< that one
};

/// Called for each new token that is not a stop id: (prompt index, token). Return false to end that
/// sequence.
using TokenCallback = std::function<bool(size_t, int64_t)>;

/// Continues every prompt; results in the order of the prompts. Draw i of prompt p depends on
/// (seed, p or its key, i) and its logits only, not on what else is in the batch. Throws
/// ErrorKind::Data for an empty prompt, an id outside the vocabulary, or a prompt longer than the
/// model's positions (then with both lengths). All ranks of a sharded model call alike.
std::vector<Generated> generate(Decoder& decoder,
                                const std::vector<std::vector<int64_t>>& prompts,
                                const SampleOptions& options,
                                const TokenCallback& on_token = {});

/// Bytes of cached keys and values of so many sequences of so many tokens each: whole pages.
int64_t cache_bytes(const DecoderConfig& config,
                    int64_t sequences,
                    int64_t tokens,
                    at::ScalarType dtype);

}  // namespace kamerton::model
