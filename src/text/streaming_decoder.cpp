// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kamerton/text/tokenizer.h"

#include "tokenizer_impl.h"

namespace kamerton::text {

StreamingDecoder::StreamingDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer), skip_special_(skip_special_tokens) {}

std::string StreamingDecoder::push(int32_t id) {
  return tokenizer_.impl().decodes_bytes() ? push_bytes(id) : push_window(id);
}

/// Whole characters and malformed bytes are given out; what may yet become a character waits.
std::string StreamingDecoder::push_bytes(int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) {
    return "";
  }
  pending_ += tokenizer_.impl().bytes_of(id);
  size_t certain = pending_.size();
  for (size_t back = 1; back <= std::min<size_t>(3, pending_.size()); ++back) {
    if (is_incomplete_char(std::string_view(pending_).substr(pending_.size() - back))) {
      certain = pending_.size() - back;
    }
  }
  std::string out = to_valid_utf8(std::string_view(pending_).substr(0, certain));
  pending_.erase(0, certain);
  return out;
}

/// Other decoders look at neighbouring tokens, so a window of them is decoded again for each token.
std::string StreamingDecoder::push_window(int32_t id) {
  constexpr size_t kLongWindow = 64;
  window_.push_back(id);
  std::string text = tokenizer_.decode(window_, skip_special_);
  if (text.ends_with("\xEF\xBF\xBD")) {
    return "";  // perhaps the beginning of a character
  }
  // A run of byte pieces that turns out malformed changes what it was before; what was shown stays
  // shown.
  const auto same = std::mismatch(shown_.begin(), shown_.end(), text.begin(), text.end()).second;
  auto from = static_cast<size_t>(same - text.begin());
  while (from > 0 && from < text.size() &&
         (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80) {
    --from;
  }
  std::string out = text.substr(from);
  shown_ = std::move(text);
  if (window_.size() > kLongWindow && !out.empty()) {
    const std::vector<int32_t> last(1, id);
    if (std::string context = tokenizer_.decode(last, skip_special_);
        !context.empty() && !context.ends_with("\xEF\xBF\xBD")) {
      window_ = last;
      shown_ = std::move(context);
    }
  }
  return out;
}

std::string StreamingDecoder::finish() {
  std::string out;
  if (tokenizer_.impl().decodes_bytes()) {
    out = to_valid_utf8(pending_);
  } else {
    const std::string text = tokenizer_.decode(window_, skip_special_);
    out = text.size() > shown_.size() && text.starts_with(shown_) ? text.substr(shown_.size()) : "";
  }
  pending_.clear();
  window_.clear();
  shown_.clear();
  return out;
}

}  // namespace kamerton::text
