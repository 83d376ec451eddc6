// SPDX-License-Identifier: Apache-2.0
#include "tiktoken.h"

#include <charconv>

#include <fmt/format.h>

#include "base64.h"
#include "json_reader.h"
#include "scanner.h"
#include "token_map.h"
#include "vocabulary.h"

namespace kamerton::text {
namespace {

/// Takes one line off the text, without its end.
std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line.ends_with('\r') ? line.substr(0, line.size() - 1) : line;
}

std::optional<std::pair<std::string, int64_t>> read_line(std::string_view line) {
  const size_t blank = line.find(' ');
  if (blank == std::string_view::npos || blank == 0) {
    return std::nullopt;
  }
  int64_t rank = -1;
  const char* const end = line.data() + line.size();
  const auto [stop, error] = std::from_chars(line.data() + blank + 1, end, rank);
  auto bytes = decode_base64(line.substr(0, blank));
  if (error != std::errc() || stop != end || rank < 0 || !bytes || bytes->empty()) {
    return std::nullopt;
  }
  return std::pair(std::move(*bytes), rank);
}

void add_special(TiktokenStyle& style, std::string content, size_t id) {
  style.special.push_back({.id = static_cast<int32_t>(id), .content = std::move(content)});
}

void add_llama3(TiktokenStyle& style, size_t ranks) {
  size_t reserved = 0;
  for (const char* name : {"begin_of_text",
                           "end_of_text",
                           "",
                           "",
                           "finetune_right_pad_id",
                           "",
                           "start_header_id",
                           "end_header_id",
                           "eom_id",
                           "eot_id",
                           "python_tag"}) {
    const std::string text =
        *name != 0 ? name : fmt::format("reserved_special_token_{}", reserved++);
    add_special(style, "<|" + text + "|>", ranks + style.special.size());
  }
  while (style.special.size() < 256) {
    add_special(style,
                fmt::format("<|reserved_special_token_{}|>", reserved++),
                ranks + style.special.size());
  }
  style.first = "<|begin_of_text|>";
}

void add_qwen(TiktokenStyle& style, size_t ranks) {
  for (const char* name : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    add_special(style, name, ranks + style.special.size());
  }
  for (int i = 0; i < 205; ++i) {
    add_special(style, fmt::format("<|extra_{}|>", i), ranks + style.special.size());
  }
}

void add_harmony(TiktokenStyle& style) {
  constexpr const char* kHarmonyNames[] = {"startoftext",
                                           "endoftext",
                                           "",
                                           "",
                                           "return",
                                           "constrain",
                                           "",
                                           "channel",
                                           "start",
                                           "end",
                                           "message",
                                           "",
                                           "",
                                           "",
                                           "call"};
  for (size_t id = 199998; id < 201088; ++id) {
    const size_t i = id - 199998;
    const bool named = i < std::size(kHarmonyNames) && *kHarmonyNames[i] != 0;
    add_special(
        style,
        named ? fmt::format("<|{}|>", kHarmonyNames[i]) : fmt::format("<|reserved_{}|>", id),
        id);
  }
}

}  // namespace

std::vector<std::string> read_tiktoken(std::string_view text, const std::string& origin) {
  std::vector<std::string> tokens;
  TokenMap seen;
  const auto highest = highest_allowed_id(text.size() / 5);
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = take_line(text);
    if (line.empty()) {
      continue;
    }
    auto entry = read_line(line);
    if (!entry || entry->second > highest) {
      refuse(origin,
             fmt::format("line {} of the rank file is not 'base64 rank'", number),
             std::string(line.substr(0, 80)));
    }
    const auto id = static_cast<size_t>(entry->second);
    if (id >= tokens.size()) {
      tokens.resize(std::max(id + 1, std::min(tokens.size() * 2, static_cast<size_t>(highest))));
    }
    if (!tokens[id].empty() || !seen.insert(entry->first, static_cast<int32_t>(id))) {
      refuse(origin, fmt::format("line {} of the rank file repeats a rank or a token", number));
    }
    tokens[id] = std::move(entry->first);
  }
  while (!tokens.empty() && tokens.back().empty()) {
    tokens.pop_back();
  }
  if (tokens.empty()) {
    refuse(origin, "the rank file holds no token");
  }
  return tokens;
}

bool looks_like_tiktoken(std::string_view text) {
  return !text.empty() && read_line(take_line(text)).has_value();
}

TiktokenStyle tiktoken_style(std::string_view file_name, size_t ranks) {
  TiktokenStyle style;
  const std::string_view name = file_name.substr(0, file_name.rfind('.'));
  if (name == "cl100k_base") {
    style.pattern = kCl100kPattern;
    add_special(style, "<|endoftext|>", 100257);
    add_special(style, "<|fim_prefix|>", 100258);
    add_special(style, "<|fim_middle|>", 100259);
    add_special(style, "<|fim_suffix|>", 100260);
    add_special(style, "<|endofprompt|>", 100276);
  } else if (name == "o200k_base") {
    style.pattern = kO200kPattern;
    add_special(style, "<|endoftext|>", 199999);
    add_special(style, "<|endofprompt|>", 200018);
  } else if (name == "o200k_harmony") {
    style.pattern = kO200kPattern;
    add_harmony(style);
  } else if (name == "p50k_base" || name == "r50k_base" || name == "gpt2" || name == "p50k_edit") {
    style.pattern = kGpt2Pattern;
    add_special(style, "<|endoftext|>", 50256);
    if (name == "p50k_edit") {
      add_special(style, "<|fim_prefix|>", 50281);
      add_special(style, "<|fim_middle|>", 50282);
      add_special(style, "<|fim_suffix|>", 50283);
    }
  } else if (name == "qwen") {
    style.pattern = kQwen2Pattern;
    add_qwen(style, ranks);
  } else {
    style.pattern = kLlama3Pattern;
    add_llama3(style, ranks);
  }
  // A shorter file under the same name has other special tokens than the known vocabulary.
  std::erase_if(style.special,
                [&](const NewToken& token) { return static_cast<size_t>(token.id) > 2 * ranks; });
  return style;
}

std::string tiktoken_json(const std::vector<std::string>& tokens, const TiktokenStyle& style) {
  std::vector<std::string> written(tokens.size());
  std::vector<int64_t> ranks(tokens.size(), -1);
  for (size_t id = 0; id < tokens.size(); ++id) {
    written[id] = bytes_to_alphabet(tokens[id]);
    ranks[id] = tokens[id].empty() ? -1 : static_cast<int64_t>(id);
  }
  TokenizerParts parts;
  parts.added_tokens = added_tokens_text(style.special);
  parts.pre_tokenizer = split_then_bytes_text(style.pattern);
  parts.decoder = byte_level_text(true, true);
  for (const NewToken& token : style.special) {
    if (!style.first.empty() && token.content == style.first) {
      parts.post_processor = template_text(token, std::nullopt);
    }
  }
  parts.model =
      fmt::format(R"({{"type":"BPE","unk_token":null,"fuse_unk":false,"byte_fallback":false,)"
                  R"("ignore_merges":true,"vocab":{},"merges":[],"kamerton_ranks":[{}]}})",
                  vocab_text(written),
                  fmt::join(ranks, ","));
  return parts.joined();
}

}  // namespace kamerton::text
