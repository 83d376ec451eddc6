// SPDX-License-Identifier: Apache-2.0
#include "site_masks.h"

#include <algorithm>
#include <vector>

#include "kamerton/federation/vector_file.h"

namespace kamerton::cli {
namespace {

constexpr int64_t kChunk = int64_t{1} << 18;

}  // namespace

void mask_update(const std::filesystem::path& plain,
                 const std::filesystem::path& masked,
                 const privacy::MaskPlan& plan,
                 const comm::Group& ranks) {
  using federation::RangeFile;
  const auto bytes = static_cast<int64_t>(std::filesystem::file_size(plain));
  const RangeFile from = RangeFile::open(plain, bytes);
  if (ranks.rank() == 0) {
    std::filesystem::remove(masked);
  }
  ranks.barrier();
  RangeFile to = RangeFile::open_or_create(masked, bytes);
  const int64_t words = bytes / 4;
  const int64_t end = words * (ranks.rank() + 1) / ranks.size();
  std::vector<uint32_t> values;
  for (int64_t at = words * ranks.rank() / ranks.size(); at < end; at += kChunk) {
    values.resize(static_cast<size_t>(std::min(kChunk, end - at)));
    from.read(4 * at, std::as_writable_bytes(std::span(values)));
    plan.apply(std::span<uint32_t>(values), static_cast<uint64_t>(at));
    to.write(4 * at, std::as_bytes(std::span(values)));
  }
  to.sync();
  ranks.barrier();
}

}  // namespace kamerton::cli
