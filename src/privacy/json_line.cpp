// SPDX-License-Identifier: Apache-2.0
#include "json_line.h"

#include <chrono>
#include <ctime>

#include "kamerton/storage/digest.h"

#include "faults.h"

namespace kamerton::privacy {

Lines lines_of(std::string_view text) {
  Lines lines;
  for (size_t end = text.find('\n'); end != std::string_view::npos;
       end = text.find('\n', lines.bytes)) {
    lines.whole.push_back(text.substr(lines.bytes, end - lines.bytes));
    lines.bytes = end + 1;
  }
  return lines;
}

std::string line_digest(std::string_view line) {
  return storage::to_hex(storage::digest_of(line));
}

std::string to_hexadecimal(const uint8_t* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    text += "0123456789abcdef"[bytes[i] >> 4];
    text += "0123456789abcdef"[bytes[i] & 15];
  }
  return text;
}

void from_hexadecimal(std::string_view text, uint8_t* bytes, size_t size, const std::string& what) {
  const auto digit = [&](char c) {
    if (c >= '0' && c <= '9') {
      return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
      return c - 'a' + 10;
    }
    bad_data("privacy.hexadecimal", what + " is not in lower-case hexadecimal digits");
  };
  if (text.size() != 2 * size) {
    bad_data("privacy.hexadecimal",
             what + " has the wrong length",
             std::to_string(text.size()),
             std::to_string(2 * size) + " digits");
  }
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<uint8_t>(16 * digit(text[2 * i]) + digit(text[2 * i + 1]));
  }
}

std::string time_text(int64_t seconds) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts = {};
  char text[32];
  if (::gmtime_r(&time, &parts) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &parts) == 0) {
    return std::to_string(seconds);
  }
  return text;
}

int64_t now_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace kamerton::privacy
