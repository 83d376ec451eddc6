// SPDX-License-Identifier: Apache-2.0
#include "file_digest.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>

#include <fmt/format.h>

#include "kamerton/storage/digest.h"

#include "cache_file.h"
#include "data_file.h"

namespace kamerton::data {

std::string file_digest(const std::string& path,
                        const std::optional<std::string>& index_dir,
                        int threads,
                        uint64_t remembered_from) {
  const auto compute = [&] { return storage::tree_digest_of_file(path, threads); };
  const DataFile file = DataFile::open(path);
  if (file.size() < remembered_from) {
    return storage::to_hex(compute());
  }
  std::error_code ignored;
  const std::string key = fmt::format("file digest 1|{}|{}|{}",
                                      std::filesystem::weakly_canonical(path, ignored).string(),
                                      file.fingerprint(),
                                      file.modified_ns());
  const CacheFile cached =
      CacheFile::open_or_build(index_dir, key, "digest", [&](CacheWriter& writer) -> CacheNumbers {
        const storage::Digest digest = compute();
        writer.append(std::as_bytes(std::span(digest)));
        return {};
      });
  storage::Digest digest = {};
  std::memcpy(
      digest.data(), cached.payload().data(), std::min(digest.size(), cached.payload().size()));
  return storage::to_hex(digest);
}

}  // namespace kamerton::data
