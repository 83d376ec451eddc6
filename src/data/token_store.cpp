// SPDX-License-Identifier: Apache-2.0
#include "token_store.h"

#include <algorithm>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"
#include "file_digest.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using core::Json;

constexpr char kTokenStoreWhere[] = "data.store";
constexpr uint64_t kMaxManifestBytes = uint64_t{256} << 20;

[[noreturn]] void bad_store(const std::string& origin,
                            const std::string& what,
                            const std::string& got = {},
                            const std::string& allowed = {}) {
  throw Error(ErrorKind::Data,
              {.where = kTokenStoreWhere,
               .what = origin + ": " + what,
               .got = got,
               .allowed = allowed,
               .hint = "kamerton data prepare makes it anew; data.store: off goes by the raw "
                       "files"});
}

std::string self_digest(Json json) {
  json.erase("self");
  return storage::tagged(storage::digest_of(std::string_view(json.dump())));
}

}  // namespace

std::string to_text(const StoreManifest& manifest) {
  Json json = Json::object();
  json["format"] = kStoreFormat;
  json["key"] = manifest.key.hex;
  json["made_from"] = manifest.key.made_from;
  json["records"] = manifest.records;
  json["parts"] = Json::array();
  for (const PartInfo& part : manifest.parts) {
    json["parts"].push_back(to_json(part));
  }
  json["self"] = self_digest(json);
  return json.dump(1) + "\n";
}

StoreManifest manifest_from_text(const std::string& text, const std::string& origin) {
  const Json json =
      core::parse_json(text, origin, {.max_bytes = kMaxManifestBytes, .max_depth = 16});
  if (!json.is_object()) {
    bad_store(origin, "the manifest is not an object", json.type_name());
  }
  const std::string format = core::json_string(json, "format", origin);
  if (format != kStoreFormat) {
    bad_store(origin, "another format", format.substr(0, 60), kStoreFormat);
  }
  if (core::json_string(json, "self", origin) != self_digest(json)) {
    bad_store(origin, "the manifest is damaged", "another digest of itself");
  }
  StoreManifest manifest;
  manifest.key.hex = core::json_string(json, "key", origin);
  manifest.records = core::json_int(json, "records", origin);
  const Json* made_from = core::json_find(json, "made_from");
  const Json* parts = core::json_find(json, "parts");
  if (made_from == nullptr || parts == nullptr || !parts->is_array()) {
    bad_store(origin, "the manifest lacks 'made_from' or a list 'parts'");
  }
  manifest.key.made_from = *made_from;
  int64_t next = 0;
  for (const Json& item : *parts) {
    manifest.parts.push_back(part_from_json(item, origin));
    const PartInfo& part = manifest.parts.back();
    if (part.first != next || part.records == 0) {
      bad_store(origin, "the parts do not join", std::to_string(part.first), std::to_string(next));
    }
    next += part.records;
  }
  if (next != manifest.records) {
    bad_store(origin, "parts are missing", std::to_string(next), std::to_string(manifest.records));
  }
  return manifest;
}

std::optional<StoreManifest> read_manifest(const fs::path& folder) {
  const fs::path path = folder / kStoreManifest;
  const storage::FileSystem& files = storage::posix_filesystem();
  if (!files.file_size(path)) {
    return std::nullopt;
  }
  return manifest_from_text(files.read_file(path, kMaxManifestBytes), path.string());
}

TokenStore TokenStore::open(const fs::path& folder,
                            const std::string& key,
                            int64_t vocab_size,
                            const PartDigest& digest) {
  const auto manifest = read_manifest(folder);
  if (!manifest) {
    bad_store(folder.string(), "there is no complete token store here");
  }
  if (manifest->key.hex != key) {
    bad_store(folder.string(), "the token store was made from something else", "", "key " + key);
  }
  TokenStore store;
  store.folder_ = folder;
  store.size_ = manifest->records;
  store.parts_.reserve(manifest->parts.size());
  for (const PartInfo& part : manifest->parts) {
    store.parts_.emplace_back(folder, part, vocab_size, digest);
  }
  return store;
}

uint64_t TokenStore::token_bytes() const {
  uint64_t bytes = 0;
  for (const PartReader& part : parts_) {
    bytes += static_cast<uint64_t>(part.info().tokens) * sizeof(int32_t);
  }
  return bytes;
}

std::optional<TokenizedRecord> TokenStore::get(int64_t index) const {
  if (index < 0 || index >= size_) {
    throw Error(ErrorKind::Internal,
                {.where = kTokenStoreWhere,
                 .what = "there is no such record",
                 .got = std::to_string(index),
                 .allowed = fmt::format("0 to {}", size_ - 1)});
  }
  const auto after =
      std::upper_bound(parts_.begin(), parts_.end(), index, [](int64_t i, const PartReader& part) {
        return i < part.info().first;
      });
  const PartReader& part = *std::prev(after);
  return part.get(index - part.info().first);
}

PartDigest part_digests(const DataConfig& config, int threads) {
  constexpr uint64_t kRemembered = uint64_t{1} << 20;
  return [index_dir = config.index_dir, threads](const fs::path& path) {
    return "poly1305-tree:" + file_digest(path.string(), index_dir, threads, kRemembered);
  };
}

std::optional<TokenStore> find_store(const Dataset::Impl& data) {
  const DataConfig& config = data.config;
  const bool required = config.store == "require";
  if (config.store == "off") {
    return std::nullopt;
  }
  const auto& parts = data.sources.parts();
  if (std::any_of(parts.begin(), parts.end(), [](const auto& part) { return part.made_for; })) {
    return std::nullopt;  // tokens already
  }
  // Digests of large data are not taken for nothing.
  std::error_code ignored;
  if (!required && !fs::is_directory(config.store_dir, ignored)) {
    return std::nullopt;
  }
  const int threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 8U));
  const StoreKey key = store_key(data, threads);
  const fs::path folder = store_folder(config, key);
  if (!storage::posix_filesystem().file_size(folder / kStoreManifest)) {
    if (required) {
      throw Error(ErrorKind::Data,
                  {.where = kTokenStoreWhere,
                   .what = "there is no token store for these files, tokenizer, template and "
                           "settings",
                   .got = "no " + folder.string(),
                   .hint = "kamerton data prepare, or data.store: auto"});
    }
    return std::nullopt;
  }
  TokenStore store = TokenStore::open(
      folder, key.hex, data.bundle.tokenizer.vocab_size(), part_digests(config, threads));
  if (store.size() != data.sources.size()) {
    bad_store(folder.string(),
              "another number of records than the data files",
              std::to_string(store.size()),
              std::to_string(data.sources.size()));
  }
  return store;
}

}  // namespace kamerton::data
