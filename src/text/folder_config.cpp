// SPDX-License-Identifier: Apache-2.0
// What the configuration files of a model folder say about its tokens.
#include <algorithm>
#include <unordered_map>

#include <nlohmann/json.hpp>

#include "folder_tokenizer.h"
#include "json_reader.h"
#include "token_map.h"

namespace kamerton::text {
namespace {

constexpr const char* kNamed[] = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
constexpr const char* kLists[] = {"additional_special_tokens", "extra_special_tokens"};

/// The tokens so far, each text once; later mentions may add flags.
class Collection {
 public:
  explicit Collection(const std::vector<std::string>& vocabulary) : next_(vocabulary.size()) {
    ids_.reserve(vocabulary.size());
    for (size_t id = 0; id < vocabulary.size(); ++id) {
      if (!vocabulary[id].empty()) {
        ids_.insert(vocabulary[id], static_cast<int32_t>(id));
      }
    }
  }

  /// id -1: that of the vocabulary, or the next free one.
  NewToken& add(const std::string& content, int64_t id) {
    for (NewToken& token : tokens_) {
      if (token.content == content) {
        return token;
      }
    }
    const int32_t known = ids_.find(content);
    const int64_t own = known >= 0 ? known : id >= 0 ? id : static_cast<int64_t>(next_);
    if (own > INT32_MAX) {
      refuse("added tokens", "the id of '" + content + "' is out of range", std::to_string(own));
    }
    next_ = std::max(next_, static_cast<size_t>(own) + 1);
    tokens_.push_back({.id = static_cast<int32_t>(own), .content = content});
    return tokens_.back();
  }
  std::vector<NewToken> take() { return std::move(tokens_); }

 private:
  TokenMap ids_;
  size_t next_;
  std::vector<NewToken> tokens_;
};

void read_flags(NewToken& token, const core::Json& json, bool special) {
  token.special = flag(json, "special", special);
  token.lstrip = flag(json, "lstrip", false);
  token.rstrip = flag(json, "rstrip", false);
  token.single_word = flag(json, "single_word", false);
  token.normalized = flag(json, "normalized", !token.special);
}

/// A special token by name: its text, or an object with its flags.
void add_named(Collection& all, const core::Json& value) {
  const std::string content = value.is_object()   ? word(value, "content", "")
                              : value.is_string() ? value.get<std::string>()
                                                  : "";
  if (content.empty()) {
    return;
  }
  NewToken& token = all.add(content, -1);
  if (value.is_object()) {
    read_flags(token, value, true);
  } else if (token.legacy) {
    token.normalized = false;
  }
  token.special = true;
}

/// added_tokens.json: ordinary tokens, unless another file names them as special.
void add_legacy(Collection& all, const core::Json& added) {
  for (const auto& [content, id] : added.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0) {
      refuse("added_tokens.json", "the id of '" + content + "' is no id", id.dump());
    }
    NewToken& token = all.add(content, id.get<int64_t>());
    token.special = false;
    token.normalized = token.legacy = true;
  }
}

int64_t id_of(const std::string& text) {
  if (text.empty() || text.size() > 9 ||
      text.find_first_not_of("0123456789") != std::string::npos) {
    refuse("tokenizer_config.json", "a key of added_tokens_decoder is no id", text);
  }
  return std::stoll(text);
}

}  // namespace

core::Json read_optional_object(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) {
    return core::Json::object();
  }
  core::Json json = core::parse_json(read_text(path.string()), path.string());
  if (!json.is_object()) {
    refuse(path.string(), "the file must hold an object");
  }
  return json;
}

std::string token_text(const core::Json& json, std::string_view name) {
  const core::Json* value = core::json_find(json, name);
  if (value != nullptr && value->is_object()) {
    value = core::json_find(*value, "content");
  }
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

bool config_flag(const core::Json& json, std::string_view key, bool otherwise) {
  const core::Json* value = core::json_find(json, key);
  return value != nullptr && value->is_boolean() ? value->get<bool>() : otherwise;
}

std::vector<NewToken> collect_added_tokens(const std::vector<std::string>& vocabulary,
                                           std::vector<NewToken> own,
                                           const FolderConfig& config) {
  Collection all(vocabulary);
  for (const NewToken& token : own) {
    all.add(token.content, token.id) = token;
  }
  const core::Json* listed = core::json_find(config.tokenizer_config, "added_tokens_decoder");
  const bool has_list = listed != nullptr && listed->is_object() && !listed->empty();
  if (has_list) {
    for (const auto& [id, value] : listed->items()) {
      if (value.is_object()) {
        read_flags(all.add(word(value, "content", ""), id_of(id)), value, false);
      }
    }
  } else {
    add_legacy(all, config.added_tokens);
  }
  for (const core::Json* source : {&config.tokenizer_config, &config.special_tokens_map}) {
    for (const char* name : kNamed) {
      if (const core::Json* value = core::json_find(*source, name)) {
        add_named(all, *value);
      }
    }
    for (const char* name : kLists) {
      const core::Json* list = core::json_find(*source, name);
      for (const core::Json& value :
           list != nullptr && list->is_array() ? *list : core::Json::array()) {
        add_named(all, value);
      }
    }
  }
  return all.take();
}

std::string around_text(const std::vector<NewToken>& added, const FolderConfig& config) {
  const auto token = [&](const char* flag_name, const char* name) -> std::optional<NewToken> {
    std::string content = token_text(config.tokenizer_config, name);
    content = content.empty() ? token_text(config.special_tokens_map, name) : content;
    const auto found = std::find_if(
        added.begin(), added.end(), [&](const NewToken& t) { return t.content == content; });
    return config_flag(config.tokenizer_config, flag_name, false) && found != added.end()
               ? std::optional<NewToken>(*found)
               : std::nullopt;
  };
  return template_text(token("add_bos_token", "bos_token"), token("add_eos_token", "eos_token"));
}

}  // namespace kamerton::text
