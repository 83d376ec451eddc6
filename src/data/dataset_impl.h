// SPDX-License-Identifier: Apache-2.0
// What a data set holds.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/data/dataset.h"

#include "preparer.h"
#include "sources.h"
#include "token_windows.h"

namespace kamerton::data {

class TokenStore;

/// An example with what happened to it on the way.
struct Prepared {
  Example example;
  int64_t whole_tokens = 0;  ///< before data.sequence_length cut it
  bool truncated = false;
  bool boundary_moved = false;
};

struct Dataset::Impl {
  Impl(const std::vector<std::string>& paths,
       const DataConfig& config_in,
       const text::TokenizerBundle& bundle_in,
       int64_t max_positions);

  Prepared prepare(int64_t index) const;
  int64_t size() const { return windows ? windows->size() : sources.size(); }
  std::string digest() const;

  DataConfig config;
  const text::TokenizerBundle& bundle;
  int64_t sequence_length;
  Sources sources;
  TrainOn train_on;
  Preparer preparer;
  std::optional<TokenWindows> windows;
  std::shared_ptr<const TokenStore> store;  ///< tokens made by `data prepare`; null: none
  Summary summary;

  mutable std::atomic<int64_t> examples = 0;
  mutable std::atomic<int64_t> truncated = 0;
  mutable std::atomic<int64_t> skipped_too_long = 0;
  mutable std::atomic<int64_t> skipped_no_target = 0;
  mutable std::atomic<int64_t> skipped_bad = 0;

 private:
  bool fit(Tokenized& tokenized, Prepared& result, const std::string& origin) const;
  bool has_target(const Prepared& result, const std::string& origin) const;
  void open_windows();
  void fill_summary(const std::vector<std::string>& paths);
};

/// What TrainOn means for this layout. ErrorKind::Config when it cannot be.
TrainOn resolve_train_on(const DataConfig& config, Layout layout, bool conversational);

/// Prepares a sample of examples and refuses silent wrongness: nothing usable, no end token
/// trained. Adds what is worth saying to the notes. ErrorKind::Data.
void check_sample(const Dataset::Impl& data, std::vector<std::string>& notes);

}  // namespace kamerton::data
