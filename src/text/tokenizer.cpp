// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include <nlohmann/json.hpp>

#include "folder_tokenizer.h"
#include "json_reader.h"
#include "tokenizer_impl.h"

namespace kamerton::text {

Tokenizer Tokenizer::from_file(const std::filesystem::path& file) {
  if (file.extension() == ".model" || file.extension() == ".tiktoken") {
    return from_json(vocabulary_file_json(file, {}), file.string());
  }
  return from_json(read_text(file.string()), file.string());
}

Tokenizer Tokenizer::from_folder(const std::filesystem::path& model_dir) {
  if (std::filesystem::exists(model_dir / "tokenizer.json")) {
    return from_file(model_dir / "tokenizer.json");
  }
  return from_json(folder_tokenizer_json(model_dir), model_dir.string());
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

std::vector<std::vector<int32_t>> Tokenizer::encode_batch(std::span<const std::string_view> texts,
                                                          bool add_special_tokens,
                                                          int threads) const {
  std::vector<std::vector<int32_t>> all(texts.size());
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::once_flag failed;
  const auto work = [&] {
    try {
      for (size_t i = next++; i < texts.size(); i = next++) {
        all[i] = impl_->encode(texts[i], add_special_tokens, false).ids;
      }
    } catch (...) {
      std::call_once(failed, [&] { failure = std::current_exception(); });
      next = texts.size();
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < std::min<int64_t>(threads, static_cast<int64_t>(texts.size())); ++i) {
    helpers.emplace_back(work);
  }
  work();
  for (std::thread& helper : helpers) {
    helper.join();
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
  return all;
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
