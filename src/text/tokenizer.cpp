// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/tokenizer.h"

#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "tokenizer_impl.h"

namespace kamerton::text {

Tokenizer Tokenizer::from_file(const std::filesystem::path& tokenizer_json) {
  return from_json(read_text(tokenizer_json.string()), tokenizer_json.string());
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& origin) {
  return Tokenizer(std::make_shared<const TokenizerImpl>(core::parse_json(json, origin), origin));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return impl_->encode(text, add_special_tokens, false).ids;
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, bool add_special_tokens) const {
  return impl_->encode(text, add_special_tokens, true);
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  return impl_->decode(ids, skip_special_tokens);
}

int64_t Tokenizer::vocab_size() const {
  return impl_->size();
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const int32_t id = impl_->find(token);
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

std::string Tokenizer::id_to_token(int32_t id) const {
  return impl_->token(id);
}

bool Tokenizer::is_special(int32_t id) const {
  return impl_->is_special(id);
}

const std::vector<std::pair<int32_t, std::string>>& Tokenizer::added_tokens() const {
  return impl_->added_list;
}

std::string Tokenizer::digest_text() const {
  return impl_->digest;
}

}  // namespace kamerton::text
