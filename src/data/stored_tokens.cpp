// SPDX-License-Identifier: Apache-2.0
#include "stored_tokens.h"

#include <algorithm>
#include <filesystem>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"

#include "store_key.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using core::Json;

constexpr char kStoredTokensWhere[] = "data.stored_tokens";
constexpr uint64_t kHead = 128;  // the manifest's format stands within

[[noreturn]] void refuse(ErrorKind kind,
                         const std::string& what,
                         const std::string& got,
                         const std::string& allowed,
                         const std::string& hint) {
  throw Error(
      kind,
      {.where = kStoredTokensWhere, .what = what, .got = got, .allowed = allowed, .hint = hint});
}

/// The one layout and mask of all sources that the store was made from.
void read_sources(const Json& made_from, const std::string& origin, StoredTokens& result) {
  const Json* sources = core::json_find(made_from, "sources");
  if (sources == nullptr || !sources->is_array() || sources->empty()) {
    refuse(ErrorKind::Data, origin + ": the manifest names no sources", "", "", "");
  }
  for (const Json& source : *sources) {
    const Layout layout = layout_from(core::json_string(source, "layout", origin));
    const int64_t mask = core::json_int(source, "train_on", origin);
    if (mask < 0 || mask > static_cast<int64_t>(TrainOn::Assistant)) {
      refuse(ErrorKind::Data, origin + ": unknown train_on", std::to_string(mask), "0 to 2", "");
    }
    const auto train_on = static_cast<TrainOn>(mask);
    if (&source != &sources->front() && (layout != result.layout || train_on != result.train_on)) {
      refuse(ErrorKind::Data,
             origin + ": the token store was made from sources of several layouts",
             std::string(name_of(layout)),
             std::string(name_of(result.layout)),
             "data.sources with the raw files, or a store for each");
    }
    result.layout = layout;
    result.train_on = train_on;
  }
}

void check_bundle(const Json& made_from,
                  const text::TokenizerBundle& bundle,
                  const std::string& origin) {
  const std::string made_with = core::json_string(made_from, "tokenizer_and_template", origin);
  if (made_with != bundle_digest(bundle)) {
    refuse(ErrorKind::Data,
           origin + ": the tokens were made with another tokenizer or chat template",
           made_with.substr(0, 16),
           bundle_digest(bundle).substr(0, 16),
           "the model that they were made for, or kamerton data prepare from the raw files");
  }
}

void check_settings(const SourceConfig& source,
                    const DataConfig& config,
                    const StoredTokens& stored,
                    const std::string& origin) {
  if (source.layout != "auto" && source.layout != name_of(stored.layout)) {
    refuse(ErrorKind::Config,
           origin + ": data.layout is not what the tokens were made from",
           source.layout,
           std::string(name_of(stored.layout)),
           "data.layout: auto");
  }
  if (config.train_on != "auto" && config.train_on != name_of(stored.train_on)) {
    refuse(ErrorKind::Config,
           origin + ": data.train_on is not what the tokens were made for",
           config.train_on,
           name_of(stored.train_on),
           "data.train_on: auto, or the raw files");
  }
  if (config.text_windows != stored.windows) {
    refuse(ErrorKind::Config,
           origin + ": data.text_windows is not what the tokens were made for",
           config.text_windows ? "true" : "false",
           stored.windows ? "true" : "false",
           "kamerton data prepare with this data.text_windows, or the raw files");
  }
  if (!source.columns.given().empty()) {
    refuse(ErrorKind::Config,
           origin + ": tokens have no columns",
           "data.columns",
           "",
           "leave it out, or name the raw files");
  }
}

}  // namespace

bool is_store_manifest(const std::string& path) {
  if (fs::path(path).filename() != kStoreManifest) {
    return false;
  }
  const DataFile file = DataFile::open(path);
  return file.read(0, std::min(kHead, file.size())).find("\"kamerton token store") !=
         std::string::npos;
}

StoredTokens open_stored(const std::string& manifest,
                         const SourceConfig& source,
                         const DataConfig& config,
                         const text::TokenizerBundle* bundle) {
  const fs::path folder = fs::path(manifest).parent_path();
  if (bundle == nullptr) {
    refuse(ErrorKind::Config,
           folder.string() + ": a token store holds no text to work on",
           "",
           "raw files",
           "name the files that it was made from");
  }
  const std::optional<StoreManifest> known = read_manifest(folder);
  if (!known) {
    refuse(ErrorKind::Data, manifest + ": the manifest is gone", "", "", "");
  }
  StoredTokens result;
  read_sources(known->key.made_from, manifest, result);
  result.windows = core::json_find(known->key.made_from, "text_windows") != nullptr;
  check_bundle(known->key.made_from, *bundle, manifest);
  check_settings(source, config, result, manifest);
  const int threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 8U));
  result.store = std::make_shared<const TokenStore>(TokenStore::open(
      folder, known->key.hex, bundle->tokenizer.vocab_size(), part_digests(config, threads)));
  return result;
}

std::string token_bytes(const TokenizedRecord& tokens) {
  std::string bytes;
  for (const Tokenized* one : {&tokens.pair.chosen, &tokens.pair.rejected}) {
    bytes.append(reinterpret_cast<const char*>(one->ids.data()), one->ids.size() * sizeof(int32_t));
    bytes += '|';
  }
  return bytes;
}

Record record_of_tokens(const TokenizedRecord& tokens,
                        const text::TokenizerBundle& bundle,
                        const std::string& origin) {
  const auto text_record = [&](const Tokenized& one) {
    Record record;
    record.kind = Record::Kind::Tokens;
    record.completion = bundle.tokenizer.decode(one.ids, true);
    record.origin = origin;
    return record;
  };
  Record record = text_record(tokens.pair.chosen);
  record.label = tokens.label;
  if (tokens.preference) {
    record.rejected = std::make_shared<const Record>(text_record(tokens.pair.rejected));
  }
  return record;
}

}  // namespace kamerton::data
