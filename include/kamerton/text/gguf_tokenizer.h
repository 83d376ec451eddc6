// SPDX-License-Identifier: Apache-2.0
// The tokenizer inside a GGUF file, written as the files of a Hugging Face model folder.
#pragma once

#include <string>

#include "kamerton/core/json.h"

namespace kamerton::text {

struct GgufTokenizerFiles {
  std::string tokenizer_json;
  std::string tokenizer_config_json;
  std::string special_tokens_map_json;
  std::string chat_template;  ///< empty where the file has none
};

/// Whether there is anything to be read; files of weights alone have nothing, or say "no_vocab".
bool has_gguf_tokenizer(const core::Json& metadata);

/// `metadata`: the file's key-value pairs as one object, arrays as arrays. Understands
/// tokenizer.ggml.model "gpt2" (byte-level BPE) with the pre-tokenizers that tokenizer.ggml.pre
/// names, and "llama" (SentencePiece BPE from scores). Throws ErrorKind::Data for anything else.
GgufTokenizerFiles gguf_tokenizer_files(const core::Json& metadata, const std::string& origin);

}  // namespace kamerton::text
