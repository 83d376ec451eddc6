// SPDX-License-Identifier: Apache-2.0
// The tokenizer of a Hugging Face model folder as the metadata of a GGUF file.
#pragma once

#include <cstdint>
#include <filesystem>

#include "kamerton/storage/gguf_writer.h"

namespace kamerton::text {

/// tokenizer.ggml.* and tokenizer.chat_template for `rows` rows of the embedding: byte-level BPE as
/// "gpt2" with the pre-tokenizer's name, SentencePiece-like BPE as "llama" with scores; "no_vocab"
/// for a folder without tokenizer.json. Throws ErrorKind::Data for a tokenizer that llama.cpp would
/// read differently: another model than BPE, an unknown pre-tokenizer, merges that no scores
/// reproduce, ids beyond the rows.
storage::GgufMetadata gguf_vocabulary(const std::filesystem::path& model_dir, int64_t rows);

}  // namespace kamerton::text
