// SPDX-License-Identifier: Apache-2.0
// The tokenizer of a model folder that has no tokenizer.json, from its older files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"

#include "tokenizer_writer.h"

namespace kamerton::text {

/// What stands beside a vocabulary file; each an object, empty where the file is absent.
struct FolderConfig {
  core::Json tokenizer_config = core::Json::object();
  core::Json special_tokens_map = core::Json::object();
  core::Json added_tokens = core::Json::object();  ///< {"token": id}
};

/// Reads an optional JSON file that must hold an object.
core::Json read_optional_object(const std::filesystem::path& path);
/// A special token is written as its text, or as an object with it; empty where there is none.
std::string token_text(const core::Json& json, std::string_view name);

/// Whether a value of tokenizer_config.json is true; null and absent mean `otherwise`.
bool config_flag(const core::Json& json, std::string_view key, bool otherwise);

/// All tokens to be found in texts before anything else: `own` ones of the vocabulary file,
/// added_tokens_decoder, added_tokens.json and the named special tokens, with their ids: that of
/// the vocabulary, else the one a file gives, else the next free one.
std::vector<NewToken> collect_added_tokens(const std::vector<std::string>& vocabulary,
                                           std::vector<NewToken> own,
                                           const FolderConfig& config);

/// The post-processor that add_bos_token and add_eos_token ask for.
std::string around_text(const std::vector<NewToken>& added, const FolderConfig& config);

/// A vocabulary file alone: a SentencePiece model or a tiktoken rank file, told by its content.
std::string vocabulary_file_json(const std::filesystem::path& path, const FolderConfig& config);

/// The folder's tokenizer as a tokenizer.json, as transformers would make it, from tokenizer.model
/// (SentencePiece or tiktoken), *.tiktoken, or vocab.json with merges.txt. Throws ErrorKind::Io
/// when the folder holds none of these, ErrorKind::Data when they are not usable.
std::string folder_tokenizer_json(const std::filesystem::path& folder);

struct SentencePieceModel;
/// A SentencePiece model as transformers' LlamaTokenizer and GemmaTokenizer read it.
std::string llama_json(const SentencePieceModel& model, const FolderConfig& config);
std::string gemma_json(const SentencePieceModel& model, const FolderConfig& config);

}  // namespace kamerton::text
