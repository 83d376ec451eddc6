// SPDX-License-Identifier: Apache-2.0
#include "part_folder.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/core/log.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::objective {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using core::Json;

constexpr char kStoreWhere[] = "objective.store";
constexpr uint64_t kMaxNote = uint64_t{1} << 20;
constexpr int64_t kLeast = 64;   // examples of a part
constexpr int64_t kMost = 1024;  // parts

Json note_of(const Part& part, const fs::path& path) {
  return {{"first", part.first},
          {"count", part.count},
          {"digest", storage::tagged(storage::digest_of_file(path))}};
}

/// Every rank throws what the first one with a fault has met.
void agree(const comm::Group& world, const std::string& fault, ErrorKind kind) {
  for (const std::string& one : world.all_gather(std::string_view(fault))) {
    if (!one.empty()) {
      throw Error(kind, one);
    }
  }
}

}  // namespace

PartFolder::PartFolder(const fs::path& root,
                       const std::string& kind,
                       std::string key,
                       int64_t examples)
    : path_(root / (kind + "-" + storage::to_hex(storage::digest_of(key)).substr(0, 32))),
      kind_(kind),
      key_(std::move(key)) {
  const int64_t size = std::max(kLeast, (examples + kMost - 1) / kMost);
  for (int64_t first = 0; first < examples; first += size) {
    parts_.push_back(
        {first, std::min(size, examples - first), fmt::format("part-{:05}", parts_.size())});
  }
}

void PartFolder::check_key() const {
  storage::FileSystem& files = storage::posix_filesystem();
  const fs::path path = path_ / "key.json";
  if (files.file_size(path) && files.read_file(path, kMaxNote) != key_) {
    throw Error(ErrorKind::Data,
                {.where = kStoreWhere,
                 .what = "the stored numbers of the " + kind_ +
                         " model are stale: they were made from other data, another model or other "
                         "settings",
                 .got = path.string(),
                 .allowed = "the key of this run",
                 .hint = "remove the folder; it is made again"});
  }
}

bool PartFolder::whole(const Part& part) const {
  storage::FileSystem& files = storage::posix_filesystem();
  const fs::path note = path_ / (part.name + ".json");
  return files.file_size(note) && files.file_size(file(part)) &&
         files.read_file(note, kMaxNote) == note_of(part, file(part)).dump() + "\n";
}

bool PartFolder::whole() const {
  return std::all_of(
      parts_.begin(), parts_.end(), [this](const Part& part) { return whole(part); });
}

std::vector<int64_t> PartFolder::missing(const comm::Group& world) const {
  Json list = Json::array();
  for (size_t i = 0; i < parts_.size() && world.rank() == 0; ++i) {
    if (!whole(parts_[i])) {
      list.push_back(i);
    }
  }
  return core::parse_json(world.broadcast(list.dump(), 0), "parts").get<std::vector<int64_t>>();
}

void PartFolder::write_part(const Part& part,
                            const std::function<void(storage::Hdf5File&)>& write) const {
  const fs::path temporary = fmt::format("{}.{}.tmp", file(part).string(), ::getpid());
  try {
    auto hdf5 = storage::Hdf5File::create(temporary);
    write(hdf5);
    hdf5.set_attribute("", "format", "kamerton " + kind_ + " numbers 1");
    hdf5.set_attribute("", "first", std::vector<int64_t>{part.first});
    hdf5.close();
    storage::sync_file(temporary);
    storage::posix_filesystem().rename(temporary, file(part));
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
  storage::write_file_atomic(storage::posix_filesystem(),
                             path_ / (part.name + ".json"),
                             note_of(part, file(part)).dump() + "\n");
}

void PartFolder::fill(const comm::Group& world,
                      const std::function<void(const std::optional<Part>&)>& compute,
                      const std::function<void(storage::Hdf5File&)>& write) const {
  std::string fault;
  try {
    storage::posix_filesystem().make_directories(path_);
    check_key();
    if (world.rank() == 0) {
      storage::write_file_atomic(storage::posix_filesystem(), path_ / "key.json", key_);
    }
  } catch (const Error& error) {
    fault = error.what();
  }
  agree(world, fault, ErrorKind::Output);
  const std::vector<int64_t> todo = missing(world);
  for (size_t begin = 0; begin < todo.size(); begin += static_cast<size_t>(world.size())) {
    const size_t mine = begin + static_cast<size_t>(world.rank());
    const auto part =
        mine < todo.size() ? std::optional(parts_[static_cast<size_t>(todo[mine])]) : std::nullopt;
    compute(part);
    try {
      if (part) {
        write_part(*part, write);
      }
    } catch (const Error& error) {
      fault = error.what();
    }
    agree(world, fault, ErrorKind::Io);
  }
  if (world.rank() == 0) {
    core::log_info(fmt::format("numbers of the {} model are in {} ({} of {} parts are new)",
                               kind_,
                               path_.string(),
                               todo.size(),
                               parts_.size()));
  }
}

}  // namespace kamerton::objective
