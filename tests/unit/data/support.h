// SPDX-License-Identifier: Apache-2.0
// A scratch folder and a tokenizer of one token a byte, so that lengths can be read off a text.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/data/config.h"
#include "kamerton/text/bundle.h"

namespace kamerton::data {

/// A folder that goes with the object.
class Scratch {
 public:
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "kamerton-data-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::string utf8_of(uint32_t c) {
  return c < 0x80
             ? std::string(1, static_cast<char>(c))
             : std::string{static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
}

/// GPT-2's printable stand-in for each byte; id = byte; then </s> 256, <|im_start|> 257, <|im_end|>
/// 258.
inline std::string byte_tokenizer_json() {
  core::Json vocab = core::Json::object();
  uint32_t extra = 0;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    vocab[utf8_of(printable ? byte : 256 + extra++)] = byte;
  }
  core::Json added = core::Json::array();
  int id = 256;
  for (const char* token : {"</s>", "<|im_start|>", "<|im_end|>"}) {
    vocab[token] = id;
    added.push_back({{"id", id++},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const core::Json level = {{"type", "ByteLevel"},
                            {"add_prefix_space", false},
                            {"trim_offsets", false},
                            {"use_regex", false}};
  const core::Json model = {{"type", "BPE"},
                            {"dropout", nullptr},
                            {"unk_token", nullptr},
                            {"continuing_subword_prefix", nullptr},
                            {"end_of_word_suffix", nullptr},
                            {"fuse_unk", false},
                            {"byte_fallback", false},
                            {"ignore_merges", false},
                            {"vocab", vocab},
                            {"merges", core::Json::array()}};
  const core::Json whole = {{"version", "1.0"},
                            {"truncation", nullptr},
                            {"padding", nullptr},
                            {"added_tokens", added},
                            {"normalizer", nullptr},
                            {"pre_tokenizer", level},
                            {"post_processor", nullptr},
                            {"decoder", level},
                            {"model", model}};
  return whole.dump();
}

inline constexpr char kMarkedTemplate[] =
    "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' }}"
    "{%- if m['role'] == 'assistant' %}{%- generation %}{{- m['content'] + '<|im_end|>' }}"
    "{%- endgeneration %}{{- '\\n' }}{%- else %}{{- m['content'] + '<|im_end|>\\n' }}{%- endif %}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
inline constexpr char kPlainTemplate[] =
    "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + "
    "'<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

inline constexpr int32_t kEnd = 258;

/// The end token is <|im_end|> with a template, </s> without.
inline text::TokenizerBundle byte_bundle(const char* chat_template) {
  const bool chat = chat_template != nullptr;
  text::TokenizerBundle bundle(text::Tokenizer::from_json(byte_tokenizer_json(), "test"));
  bundle.eos = chat ? kEnd : 256;
  bundle.eos_text = chat ? "<|im_end|>" : "</s>";
  bundle.stop_ids = {chat ? kEnd : 256};
  if (chat) {
    bundle.chat_template = text::ChatTemplate::from_text(chat_template, core::Json::object());
  }
  return bundle;
}

/// The error's text; fails the test when there is none or of another kind.
inline std::string error_of(core::ErrorKind kind, const std::function<void()>& act) {
  try {
    act();
  } catch (const core::Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return {};
}

/// Environment KAMERTON_SHARED, or nothing.
inline std::optional<std::filesystem::path> shared_folder() {
  const char* folder = std::getenv("KAMERTON_SHARED");
  if (folder == nullptr || !std::filesystem::is_directory(folder)) {
    return std::nullopt;
  }
  return folder;
}

}  // namespace kamerton::data
