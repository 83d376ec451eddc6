// SPDX-License-Identifier: Apache-2.0
#include "selection.h"

#include <cstring>

#include <fmt/format.h>

#include "kamerton/core/log.h"
#include "kamerton/storage/digest.h"

namespace kamerton::data {
namespace {

constexpr size_t kSelectionBuffered = 1 << 12;

template <class Emit>
void select(int64_t records,
            const std::function<std::string(int64_t)>& read,
            const Selection::Options& options,
            const Emit& emit) {
  for (int64_t i = 0; i < records; ++i) {
    if (is_validation(read(i), options.fraction) == (options.side == Side::Validation)) {
      emit(static_cast<uint64_t>(i));
    }
  }
}

}  // namespace

bool is_validation(std::string_view record, double fraction) {
  const storage::Digest digest = storage::digest_of(record);
  uint64_t bits = 0;
  for (size_t i = 0; i < sizeof(bits); ++i) {
    bits = bits << 8 | digest[i];
  }
  return static_cast<double>(bits >> 11) * 0x1.0p-53 < fraction;
}

Selection Selection::build(int64_t records,
                           const std::function<std::string(int64_t)>& read,
                           const Options& options) {
  Selection selection;
  if (static_cast<uint64_t>(records) < options.small_records) {
    select(records, read, options, [&](uint64_t i) { selection.small_.push_back(i); });
    return selection;
  }
  const std::string key = fmt::format(
      "split 1|{}|{}|{}", options.key, options.fraction, static_cast<int>(options.side));
  selection.table_ = CacheFile::open_or_build(
      options.folder, key, "split", [&](CacheWriter& writer) -> CacheNumbers {
        core::log_info("splitting the records into training and validation");
        std::vector<uint64_t> buffer;
        const auto flush = [&] {
          writer.append(std::as_bytes(std::span<const uint64_t>(buffer)));
          buffer.clear();
        };
        select(records, read, options, [&](uint64_t i) {
          buffer.push_back(i);
          if (buffer.size() == kSelectionBuffered) {
            flush();
          }
        });
        flush();
        return {};
      });
  return selection;
}

Selection Selection::of(std::vector<uint64_t> records) {
  Selection selection;
  selection.small_ = std::move(records);
  return selection;
}

std::span<const uint64_t> Selection::all() const {
  if (!table_) {
    return small_;
  }
  const std::span<const std::byte> bytes = table_->payload();
  return {reinterpret_cast<const uint64_t*>(bytes.data()), bytes.size() / sizeof(uint64_t)};
}

}  // namespace kamerton::data
