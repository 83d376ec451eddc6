// SPDX-License-Identifier: Apache-2.0
#include "record_index.h"

#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include "kamerton/core/log.h"

namespace kamerton::data {
namespace {

static_assert(sizeof(Entry) == 16);

constexpr size_t kBufferedEntries = 1 << 12;

std::string cache_key(const DataFile& file, FileForm form, const IndexOptions& options) {
  std::error_code ignored;
  return fmt::format("records 2|{}|{}|{}|{}|{}",
                     std::filesystem::weakly_canonical(file.path(), ignored).string(),
                     file.fingerprint(),
                     file.modified_ns(),
                     static_cast<int>(form),
                     options.max_record_bytes);
}

CacheNumbers to_numbers(const Faults& faults) {
  return {faults.count | static_cast<uint64_t>(faults.first) << 56,
          faults.first_line,
          faults.first_byte,
          faults.columns | static_cast<uint64_t>(faults.header_columns) << 32};
}

Faults from_numbers(const CacheNumbers& numbers) {
  return {.count = numbers[0] & ((uint64_t{1} << 56) - 1),
          .first_line = numbers[1],
          .first_byte = numbers[2],
          .first = static_cast<Fault>(numbers[0] >> 56),
          .columns = static_cast<uint32_t>(numbers[3]),
          .header_columns = static_cast<uint32_t>(numbers[3] >> 32)};
}

CacheNumbers write_entries(const DataFile& file,
                           FileForm form,
                           const IndexOptions& options,
                           CacheWriter& writer) {
  core::log_info(fmt::format("{}: finding records", file.path()));
  std::vector<Entry> buffer;
  buffer.reserve(kBufferedEntries);
  const auto flush = [&] {
    writer.append(std::as_bytes(std::span<const Entry>(buffer)));
    buffer.clear();
  };
  const Faults faults = scan(file, form, options.max_record_bytes, [&](const Entry& entry) {
    buffer.push_back(entry);
    if (buffer.size() == kBufferedEntries) {
      flush();
    }
  });
  flush();
  return to_numbers(faults);
}

}  // namespace

RecordIndex RecordIndex::build(const DataFile& file, FileForm form, const IndexOptions& options) {
  RecordIndex index;
  if (file.size() < options.small_file_bytes) {
    index.faults_ = scan(file, form, options.max_record_bytes, [&](const Entry& entry) {
      index.small_.push_back(entry);
    });
    return index;
  }
  index.table_ = CacheFile::open_or_build(
      options.folder, cache_key(file, form, options), "records", [&](CacheWriter& writer) {
        return write_entries(file, form, options, writer);
      });
  index.faults_ = from_numbers(index.table_->numbers());
  return index;
}

std::span<const Entry> RecordIndex::entries() const {
  if (!table_) {
    return small_;
  }
  const std::span<const std::byte> bytes = table_->payload();
  return {reinterpret_cast<const Entry*>(bytes.data()), bytes.size() / sizeof(Entry)};
}

}  // namespace kamerton::data
