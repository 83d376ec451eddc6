// SPDX-License-Identifier: Apache-2.0
#include "kamerton/text/bundle.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "folder_tokenizer.h"
#include "json_reader.h"

namespace kamerton::text {
namespace {

constexpr const char* kNames[] = {
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
constexpr const char* kFiles[] = {"tokenizer.json",
                                  "tokenizer_config.json",
                                  "special_tokens_map.json",
                                  "chat_template.jinja",
                                  "chat_template.json",
                                  "added_tokens.json",
                                  "tokenizer.model",
                                  "spiece.model",
                                  "sentencepiece.bpe.model",
                                  "vocab.json",
                                  "merges.txt"};

/// One id, or the first of a list; nothing where it is null or no id of this tokenizer.
std::vector<int32_t> ids_in(const core::Json& json, const char* name, const Tokenizer& tokenizer) {
  const core::Json* value = core::json_find(json, name);
  std::vector<int32_t> ids;
  const auto add = [&](const core::Json& id) {
    if (id.is_number_integer() && id.get<int64_t>() >= 0 &&
        id.get<int64_t>() < tokenizer.vocab_size()) {
      ids.push_back(id.get<int32_t>());
    }
  };
  if (value != nullptr && value->is_array()) {
    std::for_each(value->begin(), value->end(), add);
  } else if (value != nullptr) {
    add(*value);
  }
  return ids;
}

/// The template inside tokenizer_config.json or chat_template.json: a text, or a list of named
/// ones.
std::string template_in(const core::Json& json) {
  const core::Json* value = core::json_find(json, "chat_template");
  if (value == nullptr) {
    return "";
  }
  if (value->is_string()) {
    return value->get<std::string>();
  }
  std::string found;
  for (const core::Json& entry : value->is_array() ? *value : core::Json::array()) {
    const std::string text = entry.is_object() ? token_text(entry, "template") : "";
    if (found.empty() || (entry.is_object() && token_text(entry, "name") == "default")) {
      found = text;
    }
  }
  return found;
}

std::string template_of(const std::filesystem::path& dir, const core::Json& config) {
  if (std::filesystem::exists(dir / "chat_template.jinja")) {
    return read_text((dir / "chat_template.jinja").string());
  }
  const std::string separate = template_in(read_optional_object(dir / "chat_template.json"));
  return separate.empty() ? template_in(config) : separate;
}

struct Named {
  std::optional<int32_t> id;
  std::string text;
};

/// A special token by its text in the configuration, else by the first id that config files give.
Named special(const char* name,
              const core::Json& specials,
              const Tokenizer& tokenizer,
              const std::vector<core::Json>& configs) {
  Named out;
  out.text = token_text(specials, name);
  if (!out.text.empty()) {
    out.id = tokenizer.token_to_id(out.text);
    return out;
  }
  for (const core::Json& config : configs) {
    const auto ids = ids_in(config, (std::string(name) + "_id").c_str(), tokenizer);
    if (!ids.empty()) {
      out.id = ids.front();
      out.text = tokenizer.id_to_token(ids.front());
      return out;
    }
  }
  return out;
}

}  // namespace

TokenizerBundle load_bundle(const std::filesystem::path& model_dir) {
  const core::Json config = read_optional_object(model_dir / "tokenizer_config.json");
  const core::Json map = read_optional_object(model_dir / "special_tokens_map.json");
  const std::vector<core::Json> model{read_optional_object(model_dir / "generation_config.json"),
                                      read_optional_object(model_dir / "config.json")};
  TokenizerBundle bundle(Tokenizer::from_folder(model_dir));
  core::Json specials = core::Json::object();
  for (const char* name : kNames) {
    const std::string own = token_text(config, name);
    const std::string text = own.empty() ? token_text(map, name) : own;
    if (!text.empty()) {
      specials[name] = text;
      bundle.special_tokens.emplace_back(name, text);
    }
  }
  const Named bos = special("bos_token", specials, bundle.tokenizer, model);
  const Named eos = special("eos_token", specials, bundle.tokenizer, model);
  const Named pad = special("pad_token", specials, bundle.tokenizer, model);
  bundle.bos = bos.id;
  bundle.bos_text = bos.text;
  bundle.eos = eos.id;
  bundle.eos_text = eos.text;
  bundle.pad = pad.id;
  bundle.pad_text = pad.text;
  bundle.stop_ids = ids_in(model[0], "eos_token_id", bundle.tokenizer);
  if (bundle.stop_ids.empty() && eos.id) {
    bundle.stop_ids.push_back(*eos.id);
  }
  if (const std::string jinja = template_of(model_dir, config); !jinja.empty()) {
    bundle.chat_template = ChatTemplate::from_text(jinja, specials);
  }
  for (const char* name : kFiles) {
    if (std::filesystem::exists(model_dir / name)) {
      bundle.files.push_back(model_dir / name);
    }
  }
  if (std::filesystem::is_directory(model_dir)) {
    for (const auto& entry : std::filesystem::directory_iterator(model_dir)) {
      if (entry.path().extension() == ".tiktoken") {
        bundle.files.push_back(entry.path());
      }
    }
  }
  return bundle;
}

std::string TokenizerBundle::digest_text() const {
  std::string out = tokenizer.digest_text();
  out += '\n';
  for (const auto& [name, text] : special_tokens) {
    out += name + '=' + text + '\n';
  }
  out += chat_template ? chat_template->source() : "";
  return out;
}

}  // namespace kamerton::text
