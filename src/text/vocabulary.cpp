// SPDX-License-Identifier: Apache-2.0
#include "vocabulary.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "json_reader.h"
#include "unicode.h"

namespace kamerton::text {

int64_t highest_allowed_id(size_t tokens) {
  return 2 * static_cast<int64_t>(tokens) + 65536;
}

Vocabulary Vocabulary::from_object(const core::Json& object, const std::string& origin) {
  if (!object.is_object()) {
    refuse(origin, "the model's vocab must be an object of token: id");
  }
  Vocabulary vocab;
  vocab.ids.reserve(object.size());
  std::vector<bool> taken;
  for (const auto& [token, value] : object.items()) {
    const bool fits = value.is_number_integer() && value.get<int64_t>() >= 0 &&
                      value.get<int64_t>() <= highest_allowed_id(object.size());
    if (!fits) {
      refuse(origin, "the id of token '" + token + "' is not an integer in range", value.dump());
    }
    const auto id = value.get<size_t>();
    if (id >= taken.size()) {
      taken.resize(std::max(id + 1, taken.size() * 2));
      vocab.tokens.resize(std::max(id + 1, vocab.tokens.size()));
    }
    if (taken[id]) {
      refuse(origin, "two tokens share the id " + std::to_string(id), token);
    }
    if (vocab.tokens.size() <= id) {
      vocab.tokens.resize(id + 1);
    }
    taken[id] = true;
    vocab.tokens[id] = token;
    vocab.ids.insert(token, static_cast<int32_t>(id));
  }
  return vocab;
}

Vocabulary Vocabulary::from_list(const std::vector<std::string>& tokens, const std::string&) {
  Vocabulary vocab;
  vocab.tokens = tokens;
  vocab.ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    vocab.ids.insert(tokens[id], static_cast<int32_t>(id));
  }
  return vocab;
}

namespace {

bool is_printed_as_itself(uint32_t c) {
  return (c >= '!' && c <= '~') || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

struct Alphabet {
  std::array<uint32_t, 256> chars{};
  std::array<int, 512> bytes{};
  Alphabet() {
    bytes.fill(-1);
    uint32_t extra = 256;
    for (uint32_t b = 0; b < 256; ++b) {
      chars[b] = is_printed_as_itself(b) ? b : extra++;
      bytes[chars[b]] = static_cast<int>(b);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

int byte_of_char(uint32_t c) {
  return c < 512 ? alphabet().bytes[c] : -1;
}

uint32_t char_of_byte(unsigned char byte) {
  return alphabet().chars[byte];
}

bool alphabet_to_bytes(std::string_view token, std::string& bytes) {
  bytes.clear();
  for (size_t i = 0; i < token.size();) {
    const int byte = byte_of_char(next_char(token, i));
    if (byte < 0) {
      return false;
    }
    bytes.push_back(static_cast<char>(byte));
  }
  return true;
}

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) {
    append_char(out, char_of_byte(static_cast<unsigned char>(byte)));
  }
  return out;
}

}  // namespace kamerton::text
