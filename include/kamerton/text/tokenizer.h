// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, exactly as the Hugging Face `tokenizers` library does it from the
// same tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kamerton::text {

/// Token ids of one text.
struct Encoding {
  std::vector<int32_t> ids;
  /// Byte range [begin, end) of the given text that each id stands for; ids that the post-processor
  /// added have (0, 0). Ranges begin and end at characters, so the pieces of one character share
  /// its range. Filled by encode_with_offsets.
  std::vector<std::pair<int64_t, int64_t>> offsets;
};

class TokenizerImpl;

/// An immutable tokenizer; copies share one state, all methods may be called from many threads at
/// once. BPE (byte-level, byte fallback, ignore_merges), Unigram and WordPiece. What a
/// tokenizer.json asks for and this does not know is refused with ErrorKind::Data when it is
/// loaded, never ignored.
class Tokenizer {
 public:
  /// A tokenizer.json; a file named *.model (SentencePiece, encoding as its library does, or
  /// tiktoken's ranks, as Llama 3's) or *.tiktoken. Throws ErrorKind::Io when the file cannot be
  /// read, ErrorKind::Data when it is not usable.
  static Tokenizer from_file(const std::filesystem::path& file);
  /// The tokenizer of a model folder, as transformers would load it: tokenizer.json, else
  /// tokenizer.model, *.tiktoken, or vocab.json with merges.txt, with the special tokens that
  /// tokenizer_config.json, special_tokens_map.json and added_tokens.json name.
  static Tokenizer from_folder(const std::filesystem::path& model_dir);
  /// `origin` names the source in errors.
  static Tokenizer from_json(std::string_view json, const std::string& origin);

  /// Bytes that are not UTF-8 are read as U+FFFD. Time is n log n in the length of the longest
  /// word, linear otherwise.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;
  Encoding encode_with_offsets(std::string_view text, bool add_special_tokens) const;

  /// The ids of many texts, on up to `threads` threads; the same as encode() of each.
  std::vector<std::vector<int32_t>> encode_batch(std::span<const std::string_view> texts,
                                                 bool add_special_tokens,
                                                 int threads) const;

  /// Always valid UTF-8; ids outside the vocabulary are left out.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// Highest id + 1 (a model's embedding may have more rows).
  int64_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// The token as the file writes it; empty for an id that does not exist.
  std::string id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;
  /// The added tokens' texts and ids ("<|im_start|>", ...), in order of id.
  const std::vector<std::pair<int32_t, std::string>>& added_tokens() const;

  /// Canonical bytes for content hashing: equal exactly when the parsed tokenizer.json is equal.
  std::string digest_text() const;

  const TokenizerImpl& impl() const { return *impl_; }

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerImpl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const TokenizerImpl> impl_;
};

/// Text as it becomes certain while ids arrive one by one. What push() and finish() return, joined,
/// is decode(all ids): a character appears when its last byte has come.
class StreamingDecoder {
 public:
  StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);
  std::string push(int32_t id);
  std::string finish();

 private:
  std::string push_bytes(int32_t id);
  std::string push_window(int32_t id);

  Tokenizer tokenizer_;
  bool skip_special_;
  std::string pending_;  ///< bytes of an unfinished character
  std::vector<int32_t>
      window_;         ///< ids since the last certain text, with one stretch of context before them
  std::string shown_;  ///< the part of decode(window_) that was given out
};

}  // namespace kamerton::text
