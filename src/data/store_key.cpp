// SPDX-License-Identifier: Apache-2.0
#include "store_key.h"

#include <nlohmann/json.hpp>

#include "kamerton/config/load.h"
#include "kamerton/storage/digest.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"
#include "file_digest.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::Json;

/// The settings that tokens may depend on, as YAML text.
std::string settings_of(const Dataset::Impl& data) {
  const DataConfig defaults;
  DataConfig config = data.config;
  config.train = defaults.train;
  config.eval = defaults.eval;
  config.layout = defaults.layout;  // what was found is said apart
  config.train_on = defaults.train_on;
  config.mixture_temperature = defaults.mixture_temperature;
  config.packing_strategy = defaults.packing_strategy;
  config.group_by_length = defaults.group_by_length;
  for (SourceConfig& source : config.sources) {
    source.name.clear();
    source.files.clear();
    source.weight.reset();
    source.layout = defaults.layout;
  }
  config.sequence_length = defaults.sequence_length;
  config.too_long = defaults.too_long;
  config.on_no_target = defaults.on_no_target;
  config.require_end_token = defaults.require_end_token;
  config.packing = defaults.packing;
  config.shuffle = defaults.shuffle;
  config.batch_rows = defaults.batch_rows;
  config.micro_batch_rows = defaults.micro_batch_rows;
  config.max_bad_records = defaults.max_bad_records;
  config.check_bytes = defaults.check_bytes;
  config.prefetch = defaults.prefetch;
  config.index_dir = defaults.index_dir;
  config.verify = defaults.verify;
  config.store = defaults.store;
  config.store_dir = defaults.store_dir;
  return config::dump(config);
}

std::string digest_text(const std::string& text) {
  return storage::to_hex(storage::digest_of(std::string_view(text)));
}

}  // namespace

std::string bundle_digest(const text::TokenizerBundle& bundle) {
  return digest_text(bundle.digest_text());
}

StoreKey store_key(const Dataset::Impl& data, int threads) {
  Json made_from = Json::object();
  made_from["data"] = Json::array();
  made_from["sources"] = Json::array();
  for (size_t i = 0; i < data.sources.parts().size(); ++i) {
    const Sources::Part& part = data.sources.parts()[i];
    Json source = Json::object();
    source["layout"] = name_of(part.layout);
    source["train_on"] = static_cast<int>(data.preparers[i].train_on());
    source["examples"] = part.size;
    made_from["sources"].push_back(std::move(source));
    for (const std::string& path : part.files) {
      made_from["data"].push_back(file_digest(path, data.config.index_dir, threads));
    }
  }
  made_from["side"] = static_cast<int>(data.side);
  made_from["tokenizer"] = digest_text(data.bundle.tokenizer.digest_text());
  made_from["tokenizer_and_template"] = bundle_digest(data.bundle);
  if (data.config.text_windows) {
    made_from["text_windows"] = true;
  }
  made_from["settings"] = settings_of(data);
  made_from["program"] = 1;  // raised when the same inputs would give other tokens
  StoreKey key;
  key.hex = digest_text(made_from.dump());
  key.made_from = std::move(made_from);
  return key;
}

fs::path store_folder(const DataConfig& config, const StoreKey& key) {
  return fs::path(config.store_dir) / key.hex.substr(0, 32);
}

}  // namespace kamerton::data
