// SPDX-License-Identifier: Apache-2.0
#include "token_part.h"

#include <algorithm>
#include <array>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/hdf5_file.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using core::Json;
using storage::DType;

constexpr char kTokenPartWhere[] = "data.store";
constexpr uint8_t kBad = 1;
constexpr uint8_t kBoundaryMoved = 2;
constexpr uint8_t kPreference = 4;
constexpr uint8_t kLabelled = 8;
constexpr uint8_t kGood = 16;
// Far above any part, far below where products of sizes overflow.
constexpr int64_t kMostElements = int64_t{1} << 40;

[[noreturn]] void bad_file(const fs::path& path,
                           const std::string& what,
                           const std::string& got,
                           const std::string& allowed) {
  throw Error(ErrorKind::Data,
              {.where = kTokenPartWhere,
               .what = path.string() + ": " + what,
               .got = got,
               .allowed = allowed,
               .hint = "kamerton data prepare makes it anew; data.store: off goes by the raw "
                       "files"});
}

int64_t size_field(const Json& json, const char* name, const std::string& origin) {
  const int64_t value = core::json_int(json, name, origin);
  if (value < 0 || value > kMostElements) {
    bad_file(origin, fmt::format("'{}' is no size", name), std::to_string(value), "0 or more");
  }
  return value;
}

template <class T>
void write_dataset(storage::Hdf5File& file,
                   const char* name,
                   DType dtype,
                   const std::vector<T>& values) {
  const auto count = static_cast<int64_t>(values.size());
  file.create_dataset(name, dtype, count);
  file.write(name, dtype, 0, count, values.data());
}

}  // namespace

Json to_json(const PartInfo& info) {
  Json json = Json::object();
  json["file"] = info.file;
  json["first"] = info.first;
  json["records"] = info.records;
  json["tokens"] = info.tokens;
  json["spans"] = info.spans;
  json["targets"] = info.targets;
  json["bad"] = info.bad;
  json["bytes"] = info.bytes;
  json["digest"] = info.digest;
  return json;
}

PartInfo part_from_json(const Json& json, const std::string& origin) {
  if (!json.is_object()) {
    bad_file(origin, "a part is not an object", json.type_name(), "{\"file\": ...}");
  }
  PartInfo info;
  info.file = core::json_string(json, "file", origin);
  info.first = size_field(json, "first", origin);
  info.records = size_field(json, "records", origin);
  info.tokens = size_field(json, "tokens", origin);
  info.spans = size_field(json, "spans", origin);
  info.targets = size_field(json, "targets", origin);
  info.bad = size_field(json, "bad", origin);
  info.bytes = size_field(json, "bytes", origin);
  info.digest = core::json_string(json, "digest", origin);
  const bool plain = !info.file.empty() && info.file.size() < 100 && info.file[0] != '.' &&
                     info.file.find('/') == std::string::npos &&
                     info.file.find('\0') == std::string::npos;
  if (!plain) {
    bad_file(origin, "a part's name is not a plain file name", "", "part-00000.h5");
  }
  return info;
}

PartDigest fresh_digests(int threads) {
  return [threads](const fs::path& path) {
    return "poly1305-tree:" + storage::to_hex(storage::tree_digest_of_file(path, threads));
  };
}

void PartWriter::append(const Tokenized& tokenized, int32_t base) {
  tokens_.insert(tokens_.end(), tokenized.ids.begin(), tokenized.ids.end());
  for (size_t i = 0; i < tokenized.trained.size();) {
    if (tokenized.trained[i] == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < tokenized.trained.size() && tokenized.trained[end] != 0) {
      ++end;
    }
    spans_.push_back(base + static_cast<int32_t>(i));
    spans_.push_back(base + static_cast<int32_t>(end));
    targets_ += static_cast<int64_t>(end - i);
    i = end;
  }
}

void PartWriter::add(const TokenizedRecord& record) {
  const auto split = static_cast<int32_t>(record.pair.chosen.ids.size());
  append(record.pair.chosen, 0);
  append(record.pair.rejected, split);
  splits_.push_back(split);
  offsets_.push_back(static_cast<int64_t>(tokens_.size()));
  span_offsets_.push_back(static_cast<int64_t>(spans_.size() / 2));
  const bool moved = record.pair.chosen.boundary_moved || record.pair.rejected.boundary_moved;
  flags_.push_back(static_cast<uint8_t>(
      (moved ? kBoundaryMoved : 0) | (record.preference ? kPreference : 0) |
      (record.label ? kLabelled : 0) | (record.label.value_or(false) ? kGood : 0)));
}

void PartWriter::add_bad() {
  splits_.push_back(0);
  offsets_.push_back(offsets_.back());
  span_offsets_.push_back(span_offsets_.back());
  flags_.push_back(kBad);
}

void PartWriter::publish(const fs::path& folder, const std::string& key, PartInfo& info) const {
  const fs::path path = folder / info.file;
  const fs::path temporary = fmt::format("{}.{}.tmp", path.string(), ::getpid());
  try {
    auto file = storage::Hdf5File::create(temporary);
    write_dataset(file, "tokens", DType::I32, tokens_);
    write_dataset(file, "offsets", DType::I64, offsets_);
    write_dataset(file, "spans", DType::I32, spans_);
    write_dataset(file, "span_offsets", DType::I64, span_offsets_);
    write_dataset(file, "splits", DType::I32, splits_);
    write_dataset(file, "flags", DType::U8, flags_);
    file.set_attribute("", "format", kStoreFormat);
    file.set_attribute("", "key", key);
    file.set_attribute("", "first", std::vector<int64_t>{info.first});
    file.close();
    storage::sync_file(temporary);
    info.tokens = static_cast<int64_t>(tokens_.size());
    info.spans = static_cast<int64_t>(spans_.size() / 2);
    info.targets = targets_;
    info.bad = std::count(flags_.begin(), flags_.end(), kBad);
    info.bytes = static_cast<int64_t>(fs::file_size(temporary));
    info.digest = fresh_digests(1)(temporary);
    storage::posix_filesystem().rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

bool part_is_whole(const fs::path& folder, const PartInfo& info, const PartDigest& digest) {
  const fs::path path = folder / info.file;
  const auto size = storage::posix_filesystem().file_size(path);
  return size && static_cast<int64_t>(*size) == info.bytes && digest(path) == info.digest;
}

PartReader::PartReader(const fs::path& folder,
                       const PartInfo& info,
                       int64_t vocab_size,
                       const PartDigest& digest)
    : info_(info), vocab_size_(vocab_size), file_([&] {
        const fs::path path = folder / info.file;
        const auto size = storage::posix_filesystem().file_size(path);
        if (!size || static_cast<int64_t>(*size) != info.bytes) {
          bad_file(path,
                   "a part of the token store is not what its manifest says",
                   size ? fmt::format("{} bytes", *size) : "no such file",
                   fmt::format("{} bytes", info.bytes));
        }
        if (digest(path) != info.digest) {
          bad_file(path, "a part of the token store is damaged", "another digest", info.digest);
        }
        return DataFile::open(path.string());
      }()) {
  const fs::path path = folder / info.file;
  auto hdf5 = storage::Hdf5File::open(path);
  const auto place = [&](const char* name, DType dtype, int64_t length) {
    const int64_t at = hdf5.data_offset(name, dtype);
    const int64_t bytes = length * static_cast<int64_t>(storage::size_of(dtype));
    if (hdf5.length(name) != length || at < 0 || (length > 0 && at == 0) ||
        bytes > info_.bytes - at) {
      bad_file(path,
               fmt::format("'{}' is not what the manifest says", name),
               fmt::format("{} elements", hdf5.length(name)),
               fmt::format("{} elements within the file", length));
    }
    return at;
  };
  tokens_at_ = place("tokens", DType::I32, info.tokens);
  offsets_at_ = place("offsets", DType::I64, info.records + 1);
  spans_at_ = place("spans", DType::I32, info.spans * 2);
  span_offsets_at_ = place("span_offsets", DType::I64, info.records + 1);
  splits_at_ = place("splits", DType::I32, info.records);
  flags_at_ = place("flags", DType::U8, info.records);
  hdf5.close();
}

void PartReader::damaged(const std::string& what) const {
  // Io: on_bad_record: skip must not take it for a bad record.
  throw Error(ErrorKind::Io,
              {.where = kTokenPartWhere,
               .what = file_.path() + ": the token store contradicts itself: " + what,
               .hint = "remove its folder and run kamerton data prepare again"});
}

std::pair<int64_t, int64_t> PartReader::range(int64_t place, int64_t index, int64_t limit) const {
  std::array<int64_t, 2> pair = {};
  file_.read_into(
      static_cast<uint64_t>(place + index * 8), reinterpret_cast<char*>(pair.data()), sizeof(pair));
  if (pair[0] < 0 || pair[1] < pair[0] || pair[1] > limit) {
    damaged("offsets out of order");
  }
  return {pair[0], pair[1]};
}

void PartReader::read_trained(int64_t index, std::vector<uint8_t>& trained) const {
  const auto [first, last] = range(span_offsets_at_, index, info_.spans);
  std::vector<int32_t> spans(static_cast<size_t>(last - first) * 2);
  file_.read_into(static_cast<uint64_t>(spans_at_ + first * 8),
                  reinterpret_cast<char*>(spans.data()),
                  spans.size() * sizeof(int32_t));
  int32_t behind = 0;
  for (size_t i = 0; i < spans.size(); i += 2) {
    if (spans[i] < behind || spans[i + 1] <= spans[i] ||
        static_cast<size_t>(spans[i + 1]) > trained.size()) {
      damaged("a trained stretch outside its record");
    }
    std::fill(trained.begin() + spans[i], trained.begin() + spans[i + 1], uint8_t{1});
    behind = spans[i + 1];
  }
}

std::optional<TokenizedRecord> PartReader::get(int64_t index) const {
  uint8_t flags = 0;
  file_.read_into(
      static_cast<uint64_t>(flags_at_ + index), reinterpret_cast<char*>(&flags), sizeof(flags));
  if ((flags & kBad) != 0) {
    return std::nullopt;
  }
  const auto [begin, end] = range(offsets_at_, index, info_.tokens);
  Tokenized all;
  all.ids.resize(static_cast<size_t>(end - begin));
  all.trained.assign(all.ids.size(), 0);
  file_.read_into(static_cast<uint64_t>(tokens_at_ + begin * 4),
                  reinterpret_cast<char*>(all.ids.data()),
                  all.ids.size() * sizeof(int32_t));
  for (const int32_t id : all.ids) {
    if (id < 0 || id >= vocab_size_) {
      damaged("a token outside the vocabulary");
    }
  }
  read_trained(index, all.trained);
  int32_t split = 0;
  file_.read_into(static_cast<uint64_t>(splits_at_ + index * 4),
                  reinterpret_cast<char*>(&split),
                  sizeof(split));
  if (split < 0 || split > end - begin || ((flags & kPreference) == 0 && split != end - begin)) {
    damaged("an answer's end outside its record");
  }
  TokenizedRecord result;
  result.preference = (flags & kPreference) != 0;
  if ((flags & kLabelled) != 0) {
    result.label = (flags & kGood) != 0;
  }
  result.pair.rejected.ids.assign(all.ids.begin() + split, all.ids.end());
  result.pair.rejected.trained.assign(all.trained.begin() + split, all.trained.end());
  all.ids.resize(static_cast<size_t>(split));
  all.trained.resize(static_cast<size_t>(split));
  all.boundary_moved = (flags & kBoundaryMoved) != 0;
  result.pair.chosen = std::move(all);
  return result;
}

}  // namespace kamerton::data
