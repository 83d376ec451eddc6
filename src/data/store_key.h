// SPDX-License-Identifier: Apache-2.0
// What tokens depend on, as one name.
#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/data/config.h"
#include "kamerton/data/dataset.h"

namespace kamerton::data {

struct StoreKey {
  std::string hex;       ///< 64 digits: the digest of made_from
  core::Json made_from;  ///< digests of the files' bytes, tokenizer, template; settings
};

/// Every setting counts but those known not to touch tokens (rows, order, lengths, where things
/// lie): a knob that nobody thought of makes a new store, never a stale one. Digests of large files
/// are kept in data.index_dir, by path, size, time and a hash of both ends.
StoreKey store_key(const Dataset::Impl& data, int threads);

/// Of the tokenizer and the chat template.
std::string bundle_digest(const text::TokenizerBundle& bundle);

/// data.store_dir / the key's first 32 digits.
std::filesystem::path store_folder(const DataConfig& config, const StoreKey& key);

}  // namespace kamerton::data
