// SPDX-License-Identifier: Apache-2.0
#include "folder_tokenizer.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "json_reader.h"
#include "scanner.h"
#include "sentencepiece.h"
#include "tiktoken.h"
#include "vocabulary.h"

namespace kamerton::text {
namespace {

namespace fs = std::filesystem;

std::string class_of(const FolderConfig& config) {
  std::string name = token_text(config.tokenizer_config, "tokenizer_class");
  if (name.ends_with("Fast")) {
    name.resize(name.size() - 4);
  }
  return name;
}

std::string from_sentencepiece(const fs::path& path,
                               const std::string& bytes,
                               const FolderConfig& config) {
  const auto model = SentencePieceModel::parse(bytes, path.string());
  const std::string name = class_of(config);
  if (name == "LlamaTokenizer" || name == "CodeLlamaTokenizer") {
    return llama_json(model, config);
  }
  if (name == "GemmaTokenizer") {
    return gemma_json(model, config);
  }
  std::vector<std::string> tokens;
  for (const SentencePiece& piece : model.pieces) {
    tokens.push_back(piece.text);
  }
  const auto added = collect_added_tokens(tokens, {}, config);
  return sentencepiece_json(model, added_tokens_text(added), around_text(added, config));
}

std::string from_tiktoken(const fs::path& path,
                          const std::string& text,
                          const FolderConfig& config) {
  const auto tokens = read_tiktoken(text, path.string());
  TiktokenStyle style = tiktoken_style(path.filename().string(), tokens.size());
  if (!config.tokenizer_config.empty()) {
    // A configuration names the special tokens itself.
    const core::Json* listed = core::json_find(config.tokenizer_config, "added_tokens_decoder");
    if (listed != nullptr && !listed->empty()) {
      style.special.clear();
      style.first.clear();
    }
    style.special = collect_added_tokens(tokens, std::move(style.special), config);
    if (config_flag(config.tokenizer_config, "add_bos_token", !style.first.empty())) {
      style.first = token_text(config.tokenizer_config, "bos_token");
    }
  }
  return tiktoken_json(tokens, style);
}

std::string merges_of(const fs::path& path) {
  const std::string text = read_text(path.string());
  std::vector<std::pair<std::string, std::string>> merges;
  for (size_t begin = 0, number = 1; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    while (line.ends_with('\r') || line.ends_with(' ')) {
      line.remove_suffix(1);
    }
    if (line.empty() || line.starts_with("#version")) {
      continue;
    }
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos || blank == 0 ||
        line.find(' ', blank + 1) != std::string_view::npos) {
      refuse(path.string(),
             fmt::format("line {} is not two tokens with a space between", number),
             std::string(line));
    }
    merges.emplace_back(line.substr(0, blank), line.substr(blank + 1));
  }
  return merges_text(merges);
}

std::vector<std::string> tokens_of(const core::Json& vocab, const std::string& origin) {
  return Vocabulary::from_object(vocab, origin).tokens;
}

std::string from_vocab_and_merges(const fs::path& folder, const FolderConfig& config) {
  const std::string name = class_of(config);
  const bool qwen = name == "Qwen2Tokenizer";
  if (!qwen && !name.empty() && name != "GPT2Tokenizer" && name != "CodeGenTokenizer") {
    refuse((folder / "vocab.json").string(),
           "vocab.json with merges.txt is read for GPT2Tokenizer and Qwen2Tokenizer only; save the "
           "tokenizer once with transformers, which writes tokenizer.json",
           name);
  }
  const std::string vocab = read_text((folder / "vocab.json").string());
  const auto tokens = tokens_of(core::parse_json(vocab, (folder / "vocab.json").string()),
                                (folder / "vocab.json").string());
  const auto added = collect_added_tokens(tokens, {}, config);
  const bool space = config_flag(config.tokenizer_config, "add_prefix_space", false);
  TokenizerParts parts;
  parts.added_tokens = added_tokens_text(added);
  parts.normalizer = qwen ? R"({"type":"NFC"})" : "null";
  parts.pre_tokenizer =
      qwen ? split_then_bytes_text(kQwen2Pattern, space) : byte_level_text(space, true);
  parts.post_processor = around_text(added, config);
  parts.decoder = byte_level_text(true, true);
  parts.model =
      R"({"type":"BPE","unk_token":null,"fuse_unk":false,"byte_fallback":false,"vocab":)" +
      vocab_text(tokens) + R"(,"merges":)" + merges_of(folder / "merges.txt") + "}";
  return parts.joined();
}

std::optional<fs::path> rank_file(const fs::path& folder) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".tiktoken") {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found.empty() ? std::nullopt : std::optional<fs::path>(found.front());
}

}  // namespace

std::string vocabulary_file_json(const fs::path& path, const FolderConfig& config) {
  const std::string bytes = read_text(path.string());
  if (looks_like_tiktoken(bytes)) {
    return from_tiktoken(path, bytes, config);
  }
  if (!SentencePieceModel::looks_like(bytes)) {
    refuse(path.string(), "the file is neither a SentencePiece model nor a tiktoken rank file");
  }
  return from_sentencepiece(path, bytes, config);
}

std::string folder_tokenizer_json(const fs::path& folder) {
  const FolderConfig config{read_optional_object(folder / "tokenizer_config.json"),
                            read_optional_object(folder / "special_tokens_map.json"),
                            read_optional_object(folder / "added_tokens.json")};
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    if (fs::exists(folder / name)) {
      return vocabulary_file_json(folder / name, config);
    }
  }
  if (fs::is_directory(folder)) {
    if (const auto ranks = rank_file(folder)) {
      return vocabulary_file_json(*ranks, config);
    }
  }
  if (fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt")) {
    return from_vocab_and_merges(folder, config);
  }
  if (folder.empty()) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "text.tokenizer",
                       .what = "no model is named",
                       .hint = "model.path: DIR in the run's file, or --model DIR"});
  }
  if (!fs::is_directory(folder)) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = "text.tokenizer",
                       .what = "there is no model folder '" + folder.string() + "'",
                       .got = fs::exists(folder) ? "a file" : "",
                       .allowed = "a folder with config.json, weights and tokenizer"});
  }
  throw core::Error(core::ErrorKind::Io,
                    {.where = "text.tokenizer",
                     .what = "there is no tokenizer in " + folder.string(),
                     .got = "",
                     .allowed = "tokenizer.json, tokenizer.model (SentencePiece or tiktoken), "
                                "*.tiktoken, or vocab.json with merges.txt",
                     .hint = ""});
}

}  // namespace kamerton::text
