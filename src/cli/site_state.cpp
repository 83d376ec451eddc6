// SPDX-License-Identifier: Apache-2.0
#include "site_state.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/storage/filesystem.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostBytes = uint64_t{64} << 20;
constexpr char kPrefix[] = "round-";
constexpr char kFacts[] = "state.json";

int64_t round_of(const std::string& name) {
  if (!name.starts_with(kPrefix) || name.size() != 12) {
    return -1;
  }
  return std::atoll(name.c_str() + 6);
}

}  // namespace

SiteState::SiteState(fs::path folder) : folder_(std::move(folder)) {}

fs::path SiteState::of(int64_t round) const {
  return folder_ / fmt::format("{}{:06d}", kPrefix, round);
}

bool SiteState::complete(int64_t round) const {
  return fs::exists(of(round) / kFacts);
}

int64_t SiteState::last_before(int64_t round) const {
  int64_t last = -1;
  for (const std::string& name : storage::posix_filesystem().list(folder_)) {
    const int64_t found = round_of(name);
    if (found < round && found > last && complete(found)) {
      last = found;
    }
  }
  return last;
}

core::Json SiteState::facts(int64_t round) const {
  const fs::path path = of(round) / kFacts;
  return core::parse_json(storage::posix_filesystem().read_file(path, kMostBytes), path.string());
}

federation::RangeFile SiteState::open(int64_t round,
                                      const std::string& vector,
                                      int64_t elements) const {
  const fs::path path = of(round) / (vector + ".f32");
  return round >= 0 && fs::exists(path) ? federation::RangeFile::open(path, 4 * elements)
                                        : federation::RangeFile();
}

federation::RangeFile SiteState::create(int64_t round,
                                        const std::string& vector,
                                        int64_t elements) const {
  return federation::RangeFile::open_or_create(of(round) / (vector + ".f32"), 4 * elements);
}

void SiteState::begin(int64_t round) const {
  storage::posix_filesystem().remove_all(of(round));
  storage::posix_filesystem().make_directories(of(round));
}

void SiteState::commit(int64_t round, const core::Json& facts) const {
  storage::FileSystem& files = storage::posix_filesystem();
  for (const std::string& name : files.list(of(round))) {
    storage::sync_file(of(round) / name);
  }
  storage::write_file_atomic(files, of(round) / kFacts, facts.dump());
  const int64_t before = last_before(round);
  for (const std::string& name : files.list(folder_)) {
    const int64_t found = round_of(name);
    if (found >= 0 && found < before) {
      files.remove_all(folder_ / name);
    }
  }
}

}  // namespace kamerton::cli
