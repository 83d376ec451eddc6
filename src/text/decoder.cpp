// SPDX-License-Identifier: Apache-2.0
#include "decoder.h"

#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "sentencepiece_decoder.h"
#include "unicode.h"
#include "vocabulary.h"

namespace kamerton::text {

std::string byte_level_bytes(std::string_view token) {
  std::string bytes;
  return alphabet_to_bytes(token, bytes) ? bytes : std::string(token);
}

int byte_piece(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') {
    return -1;
  }
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) {
      return -1;
    }
    value = value * 16 + digit;
  }
  return value;
}

Decoder::Decoder(const core::Json& json, const std::string& origin) {
  if (!json.is_null()) {
    present_ = true;
    add(json, origin, 0);
  }
}

void Decoder::add(const core::Json& json, const std::string& origin, int depth) {
  const std::string type = type_of(json, origin);
  if (type == "Sequence") {
    const core::Json* list = core::json_find(json, "decoders");
    if (list == nullptr || !list->is_array() || depth > 8 || list->size() > 256) {
      refuse(origin, "a decoder Sequence must hold a list of at most 256 'decoders'");
    }
    for (const core::Json& item : *list) {
      add(item, origin, depth + 1);
    }
  } else if (type == "ByteLevel") {
    steps_.push_back({.kind = Kind::ByteLevel});
  } else if (type == "ByteFallback") {
    steps_.push_back({.kind = Kind::ByteFallback});
  } else if (type == "Fuse") {
    steps_.push_back({.kind = Kind::Fuse});
  } else if (type == "Replace") {
    const core::Json* pattern = core::json_find(json, "pattern");
    steps_.push_back({.kind = Kind::Replace,
                      .pattern = Pattern::from_json(pattern ? *pattern : core::Json(), origin),
                      .content = core::json_string(json, "content", origin)});
  } else if (type == "Strip") {
    const int64_t start = core::json_int(json, "start", origin);
    const int64_t stop = core::json_int(json, "stop", origin);
    steps_.push_back(
        {.kind = Kind::Strip, .content = word(json, "content", " "), .start = start, .stop = stop});
  } else if (type == "Metaspace") {
    const std::string scheme =
        word(json, "prepend_scheme", flag(json, "add_prefix_space", true) ? "always" : "never");
    steps_.push_back({.kind = Kind::Metaspace,
                      .pattern = Pattern::of_string(word(json, "replacement", "\u2581")),
                      .content = word(json, "replacement", "\u2581"),
                      .drop_first = scheme != "never"});
  } else if (type == "WordPiece") {
    steps_.push_back({.kind = Kind::WordPiece,
                      .content = word(json, "prefix", "##"),
                      .cleanup = flag(json, "cleanup", true)});
  } else if (type == "kamerton.SentencePiece") {
    steps_.push_back({.kind = Kind::SentencePiece,
                      .sentencepiece = std::make_shared<const SentencePieceDecoder>(json, origin)});
  } else if (type == "BPEDecoder") {
    steps_.push_back({.kind = Kind::Bpe, .content = word(json, "suffix", "</w>")});
  } else {
    refuse(origin, "this decoder is not supported", type);
  }
}

namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) {
    return;
  }
  for (size_t i = text.find(from); i != std::string::npos; i = text.find(from, i + to.size())) {
    text.replace(i, from.size(), to);
  }
}

std::string replaced(const std::string& text, const Pattern& pattern, const std::string& with) {
  std::string out;
  size_t last = 0;
  pattern.each_match(text, [&](Span m) {
    out.append(text, last, m.begin - last).append(with);
    last = m.end;
  });
  return out.append(text, last);
}

/// Runs of byte pieces become their text; where they are not UTF-8, one U+FFFD a byte.
void byte_fallback(std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) {
      return;
    }
    if (valid_prefix(run) == run.size()) {
      out.push_back(run);
    } else {
      out.insert(out.end(), run.size(), to_utf8(kReplacementChar));
    }
    run.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = byte_piece(token); byte >= 0) {
      run.push_back(static_cast<char>(byte));
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

void strip(std::string& token, const std::string& content, int64_t start, int64_t stop) {
  size_t begin = 0;
  size_t end = token.size();
  for (int64_t k = 0; k < start && std::string_view(token).substr(begin).starts_with(content);
       ++k) {
    begin += content.size();
  }
  for (int64_t k = 0; k < stop && end >= begin + content.size() &&
                      std::string_view(token).substr(begin, end - begin).ends_with(content);
       ++k) {
    end -= content.size();
  }
  token = token.substr(begin, end - begin);
}

void clean_up(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {{" .", "."},
                                                                      {" ?", "?"},
                                                                      {" !", "!"},
                                                                      {" ,", ","},
                                                                      {" ' ", "'"},
                                                                      {" n't", "n't"},
                                                                      {" 'm", "'m"},
                                                                      {" do not", " don't"},
                                                                      {" 's", "'s"},
                                                                      {" 've", "'ve"},
                                                                      {" 're", "'re"}};
  for (const auto& [from, to] : kRules) {
    replace_all(text, from, to);
  }
}

void byte_level(std::vector<std::string>& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) {
    bytes += byte_level_bytes(token);
  }
  tokens.assign(1, to_valid_utf8(bytes));
}

std::string fused(const std::vector<std::string>& tokens) {
  std::string out;
  for (const std::string& token : tokens) {
    out += token;
  }
  return out;
}

}  // namespace

void Decoder::apply(const Step& step, std::vector<std::string>& tokens) {
  switch (step.kind) {
    case Kind::ByteLevel:
      return byte_level(tokens);
    case Kind::ByteFallback:
      return byte_fallback(tokens);
    case Kind::SentencePiece:
      tokens.assign(1, step.sentencepiece->join(tokens));
      return;
    case Kind::Fuse:
      tokens.assign(1, fused(tokens));
      return;
    default:
      break;
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string& token = tokens[i];
    if (step.kind == Kind::Replace) {
      token = replaced(token, step.pattern, step.content);
    } else if (step.kind == Kind::Strip && !step.content.empty()) {
      strip(token, step.content, step.start, step.stop);
    } else if (step.kind == Kind::Metaspace) {
      // The blank before the first token was never in the text.
      const bool drops = i == 0 && step.drop_first && token.starts_with(step.content);
      token = replaced(drops ? token.substr(step.content.size()) : token, step.pattern, " ");
    } else if (step.kind == Kind::WordPiece) {
      if (i > 0) {
        token = token.starts_with(step.content) ? token.substr(step.content.size()) : " " + token;
      }
      if (step.cleanup) {
        clean_up(token);
      }
    } else if (step.kind == Kind::Bpe) {
      replace_all(token, step.content, i + 1 == tokens.size() ? "" : " ");
    }
  }
}

std::string Decoder::join(std::vector<std::string> tokens) const {
  if (!present_) {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      out += (i > 0 ? " " : "") + tokens[i];
    }
    return out;
  }
  for (const Step& step : steps_) {
    apply(step, tokens);
  }
  return fused(tokens);
}

}  // namespace kamerton::text
