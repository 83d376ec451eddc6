// SPDX-License-Identifier: Apache-2.0
#include "gguf_styles.h"

#include <algorithm>
#include <vector>

#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "scanner.h"

namespace kamerton::text {
namespace {

using core::Json;

/// Mistral's own: as o200k, but single digits and no English suffixes.
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json split_then_bytes(std::string_view pattern) {
  const Json split = {{"type", "Split"},
                      {"pattern", {{"Regex", pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  return {{"type", "Sequence"},
          {"pretokenizers", Json::array({split, byte_level_json(false, false)})}};
}

bool one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// The steps of a pre-tokenizer, a Sequence taken apart.
std::vector<Json> steps_of(const Json& pre_tokenizer) {
  if (!pre_tokenizer.is_object() || word(pre_tokenizer, "type", "") != "Sequence") {
    return {pre_tokenizer};
  }
  std::vector<Json> steps;
  if (const Json* list = core::json_find(pre_tokenizer, "pretokenizers");
      list != nullptr && list->is_array()) {
    steps.assign(list->begin(), list->end());
  }
  return steps;
}

bool is_byte_level(const Json& step, bool use_regex) {
  return step.is_object() && word(step, "type", "") == "ByteLevel" &&
         !flag(step, "add_prefix_space", true) && flag(step, "use_regex", true) == use_regex;
}

std::string regex_of(const Json& split) {
  const Json* pattern = core::json_find(split, "pattern");
  return pattern != nullptr && pattern->is_object() ? word(*pattern, "Regex", "") : "";
}

}  // namespace

Json byte_level_json(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

GgufStyle gguf_style(const std::string& pre, const std::string& origin) {
  if (one_of(pre, {"smollm", "starcoder", "refact", "command-r", "codeshell"})) {
    const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    return {nullptr,
            {{"type", "Sequence"},
             {"pretokenizers", Json::array({digits, byte_level_json(false, true)})}}};
  }
  if (one_of(pre, {"llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx"})) {
    return {nullptr, split_then_bytes(kLlama3Pattern), true};
  }
  if (one_of(pre, {"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"})) {
    return {{{"type", "NFC"}}, split_then_bytes(kQwen2Pattern)};
  }
  if (pre == "gpt-4o") {
    return {nullptr, split_then_bytes(kO200kPattern)};
  }
  if (pre == "tekken") {
    return {nullptr, split_then_bytes(kTekkenPattern), true};
  }
  if (one_of(pre, {"default", "gpt-2", "phi-2", "mpt", "olmo", "jina-es", "jina-de", ""})) {
    return {nullptr, byte_level_json(false, true)};
  }
  refuse(origin,
         "the GGUF's pre-tokenizer is not known: smollm, llama-bpe, qwen2, gpt-4o, tekken, gpt-2, "
         "default are",
         pre);
}

std::optional<std::string> gguf_style_name(const Json& pre_tokenizer) {
  const std::vector<Json> steps = steps_of(pre_tokenizer);
  if (steps.size() == 1) {
    return is_byte_level(steps[0], true) ? std::optional<std::string>("gpt-2") : std::nullopt;
  }
  if (steps.size() != 2 || !steps[0].is_object()) {
    return std::nullopt;
  }
  const std::string first = word(steps[0], "type", "");
  if (first == "Digits" && flag(steps[0], "individual_digits", false) &&
      is_byte_level(steps[1], true)) {
    return "smollm";
  }
  if (first != "Split" || !is_byte_level(steps[1], false) ||
      word(steps[0], "behavior", "") != "Isolated" || flag(steps[0], "invert", false)) {
    return std::nullopt;
  }
  for (const auto& [pattern, name] : {std::pair(kLlama3Pattern, "llama-bpe"),
                                      std::pair(kQwen2Pattern, "qwen2"),
                                      std::pair(kO200kPattern, "gpt-4o"),
                                      std::pair(kTekkenPattern, "tekken")}) {
    if (regex_of(steps[0]) == pattern) {
      return name;
    }
  }
  return std::nullopt;
}

}  // namespace kamerton::text
