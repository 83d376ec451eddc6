// SPDX-License-Identifier: Apache-2.0
// A token store that stands among the data files in place of the texts it was made from.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kamerton/data/config.h"

#include "layout.h"
#include "token_store.h"

namespace kamerton::data {

struct StoredTokens {
  std::shared_ptr<const TokenStore> store;
  Layout layout = Layout::Text;
  TrainOn train_on = TrainOn::All;
  bool windows = false;  ///< records are documents, and pieces of documents, for text_windows
};

/// Whether this file is the manifest of a token store, by name and first bytes.
bool is_store_manifest(const std::string& path);

/// Opens the store of this manifest. `bundle`: null where only texts are of use. ErrorKind::Config
/// when settings ask for other tokens (data.layout, data.train_on, no bundle); ErrorKind::Data when
/// it was made with another tokenizer or template, from sources of several layouts, or is damaged.
StoredTokens open_stored(const std::string& manifest,
                         const SourceConfig& source,
                         const DataConfig& config,
                         const text::TokenizerBundle* bundle);

/// The tokens as bytes, which tell records apart.
std::string token_bytes(const TokenizedRecord& tokens);

/// The text of the tokens, for what looks at texts; of a preference both.
Record record_of_tokens(const TokenizedRecord& tokens,
                        const text::TokenizerBundle& bundle,
                        const std::string& origin);

}  // namespace kamerton::data
