// SPDX-License-Identifier: Apache-2.0
#include "tokenizer_writer.h"

#include <nlohmann/json.hpp>

namespace kamerton::text {

std::string TokenizerParts::joined() const {
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":)" + added_tokens +
         R"(,"normalizer":)" + normalizer + R"(,"pre_tokenizer":)" + pre_tokenizer +
         R"(,"post_processor":)" + post_processor + R"(,"decoder":)" + decoder + R"(,"model":)" +
         model + "}";
}

std::string json_quoted(std::string_view text) {
  return core::Json(text).dump(-1, ' ', false, core::Json::error_handler_t::replace);
}

std::string vocab_text(const std::vector<std::string>& tokens) {
  std::string out = "{";
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty()) {
      out += (out.size() > 1 ? "," : "") + json_quoted(tokens[id]) + ":" + std::to_string(id);
    }
  }
  return out + "}";
}

std::string merges_text(const std::vector<std::pair<std::string, std::string>>& merges) {
  std::string out = "[";
  for (const auto& [left, right] : merges) {
    out += (out.size() > 1 ? ",[" : "[") + json_quoted(left) + "," + json_quoted(right) + "]";
  }
  return out + "]";
}

std::string added_tokens_text(const std::vector<NewToken>& tokens) {
  std::string out = "[";
  const auto flag = [](const char* name, bool value) {
    return std::string(",\"") + name + "\":" + (value ? "true" : "false");
  };
  for (const NewToken& token : tokens) {
    out += (out.size() > 1 ? ",{\"id\":" : "{\"id\":") + std::to_string(token.id) +
           ",\"content\":" + json_quoted(token.content) + flag("single_word", token.single_word) +
           flag("lstrip", token.lstrip) + flag("rstrip", token.rstrip) +
           flag("normalized", token.normalized) + flag("special", token.special) + "}";
  }
  return out + "]";
}

std::string byte_level_text(bool add_prefix_space, bool use_regex) {
  return std::string(R"({"type":"ByteLevel","add_prefix_space":)") +
         (add_prefix_space ? "true" : "false") + R"(,"trim_offsets":true,"use_regex":)" +
         (use_regex ? "true" : "false") + "}";
}

std::string template_text(const std::optional<NewToken>& first,
                          const std::optional<NewToken>& last) {
  if (!first && !last) {
    return "null";
  }
  std::string single, tokens;
  const auto add = [&](const NewToken& token) {
    const std::string name = json_quoted(token.content);
    single +=
        (single.empty() ? "" : ",") + (R"({"SpecialToken":{"id":)" + name) + R"(,"type_id":0}})";
    if (tokens.find(name + ":{") == std::string::npos) {
      tokens += (tokens.empty() ? "" : ",") + name + R"(:{"id":)" + name + R"(,"ids":[)" +
                std::to_string(token.id) + R"(],"tokens":[)" + name + "]}";
    }
  };
  if (first) {
    add(*first);
  }
  single += std::string(single.empty() ? "" : ",") + R"({"Sequence":{"id":"A","type_id":0}})";
  if (last) {
    add(*last);
  }
  return R"({"type":"TemplateProcessing","single":[)" + single +
         R"(],"pair":[],"special_tokens":{)" + tokens + "}}";
}

std::string split_then_bytes_text(std::string_view pattern, bool add_prefix_space) {
  return R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)" +
         json_quoted(pattern) + R"(},"behavior":"Isolated","invert":false},)" +
         byte_level_text(add_prefix_space, false) + "]}";
}

}  // namespace kamerton::text
