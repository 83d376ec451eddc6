// SPDX-License-Identifier: Apache-2.0
#include "sentencepiece_decoder.h"

#include <nlohmann/json.hpp>

#include "decoder.h"
#include "json_reader.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

constexpr std::string_view kSentencepieceDecoderBlank = "\u2581";

/// Bytes as text; each one that is no part of a character becomes U+FFFD.
void append_bytes(std::string& out, std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t valid = valid_prefix(bytes);
    out += bytes.substr(0, valid);
    bytes.remove_prefix(valid);
    if (!bytes.empty()) {
      append_char(out, kReplacementChar);
      bytes.remove_prefix(1);
    }
  }
}

void append_blanks_replaced(std::string& out, std::string_view piece) {
  for (size_t i = 0; i < piece.size();) {
    const size_t blank = std::min(piece.find(kSentencepieceDecoderBlank, i), piece.size());
    out += piece.substr(i, blank - i);
    if (blank < piece.size()) {
      out += ' ';
    }
    i = blank + kSentencepieceDecoderBlank.size();
  }
}

}  // namespace

SentencePieceDecoder::SentencePieceDecoder(const core::Json& json, const std::string& origin)
    : unknown_(word(json, "unknown", "")),
      unk_surface_(word(json, "unk_surface", "")),
      strip_first_(flag(json, "strip_first", true)),
      strip_all_(flag(json, "strip_all", true)) {
  const core::Json* hidden = core::json_find(json, "hidden");
  for (const core::Json& piece :
       hidden != nullptr && hidden->is_array() ? *hidden : core::Json::array()) {
    if (!piece.is_string()) {
      refuse(origin, "the decoder's hidden pieces must be strings", piece.dump());
    }
    hidden_.insert(piece.get<std::string>());
  }
}

std::string SentencePieceDecoder::join(const std::vector<std::string>& pieces) const {
  std::string out;
  std::string bytes;
  bool blank_taken = false;
  const auto flush = [&] {
    append_bytes(out, bytes);
    bytes.clear();
  };
  for (const std::string& token : pieces) {
    if (const int byte = byte_piece(token); byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
      continue;
    }
    flush();
    std::string_view piece = token;
    const bool at_start = out.empty() && !blank_taken;
    if (hidden_.count(token) > 0) {
      continue;
    }
    if (token == unknown_) {
      out += unk_surface_;
      continue;
    }
    if (at_start && strip_first_ && piece.starts_with(kSentencepieceDecoderBlank)) {
      piece.remove_prefix(kSentencepieceDecoderBlank.size());
      blank_taken = !strip_all_;
    }
    append_blanks_replaced(out, piece);
  }
  flush();
  return out;
}

}  // namespace kamerton::text
