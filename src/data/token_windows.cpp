// SPDX-License-Identifier: Apache-2.0
#include "token_windows.h"

#include <algorithm>
#include <functional>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"

namespace kamerton::data {
namespace {

constexpr uint32_t kDocumentStart = uint32_t{1} << 31;

using Append = std::function<void(std::span<const uint32_t>)>;

void join_all(const Sources& sources, const TokenWindows::Piece& piece, const Append& append) {
  std::vector<uint32_t> marked;
  for (int64_t i = 0; i < sources.size(); ++i) {
    Tokenized tokens;
    try {
      tokens = piece(i);
    } catch (const core::Error&) {
      sources.tolerate_current_error(i);
      continue;
    }
    marked.assign(tokens.ids.begin(), tokens.ids.end());
    if (!marked.empty() && tokens.trained.front() == 0) {
      marked.front() |= kDocumentStart;
    }
    append(marked);
  }
}

}  // namespace

TokenWindows TokenWindows::build(const Sources& sources,
                                 const Piece& piece,
                                 const Options& options) {
  TokenWindows windows;
  windows.length_ = options.length;
  if (sources.bytes() < options.small_bytes) {
    join_all(sources, piece, [&](std::span<const uint32_t> ids) {
      windows.small_.insert(windows.small_.end(), ids.begin(), ids.end());
    });
    return windows;
  }
  windows.table_ = CacheFile::open_or_build(
      options.folder, options.key, "tokens", [&](CacheWriter& writer) -> CacheNumbers {
        core::log_info("joining the tokens of the text, once");
        join_all(sources, piece, [&](std::span<const uint32_t> ids) {
          writer.append(std::as_bytes(ids));
        });
        return {};
      });
  return windows;
}

std::span<const uint32_t> TokenWindows::all() const {
  if (!table_) {
    return small_;
  }
  const std::span<const std::byte> bytes = table_->payload();
  return {reinterpret_cast<const uint32_t*>(bytes.data()), bytes.size() / sizeof(uint32_t)};
}

int64_t TokenWindows::size() const {
  const int64_t whole = tokens() / length_;
  return whole + (tokens() % length_ > 1 ? 1 : 0);
}

Example TokenWindows::get(int64_t index) const {
  const std::span<const uint32_t> tokens = all();
  const auto begin = static_cast<size_t>(index * length_);
  const size_t count = std::min(tokens.size() - begin, static_cast<size_t>(length_));
  Example example;
  example.source_index = index;
  example.tokens.resize(count);
  example.targets.assign(count, kNoTarget);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t token = tokens[begin + i];
    example.tokens[i] = static_cast<int32_t>(token & ~kDocumentStart);
    if (i == 0) {
      continue;
    }
    if ((token & kDocumentStart) != 0) {
      example.document_starts.push_back(static_cast<int32_t>(i));
    } else {
      example.targets[i - 1] = example.tokens[i];
    }
  }
  return example;
}

}  // namespace kamerton::data
