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

#include "mixture.h"
#include "preparer.h"
#include "sources.h"
#include "token_windows.h"

namespace kamerton::data {

class TokenStore;
struct TokenizedRecord;

/// An example with what happened to it on the way.
struct Prepared {
  Example example;
  int64_t whole_tokens = 0;  ///< before data.sequence_length cut it
  bool truncated = false;
  bool boundary_moved = false;
};

struct Dataset::Impl {
  Impl(const std::vector<SourceConfig>& source_list,
       const DataConfig& config_in,
       Side side_in,
       const text::TokenizerBundle& bundle_in,
       int64_t max_positions);

  Prepared prepare(int64_t index) const;
  /// The prompt of `own` with the answer of an example half the data set away: records that stand
  /// side by side often share a prompt.
  Example mismatch(const Example& own) const;
  /// What the record is as tokens, from the store or made now. ErrorKind::Data for a bad record.
  TokenizedRecord tokenize(int64_t index) const;
  /// Of text_windows: a record is a document or, of a large one, a piece.
  Tokenized tokenize_piece(int64_t index) const;
  int64_t size() const { return windows ? windows->size() : sources.size(); }
  std::string digest() const;
  /// Whether examples are other tokens than those of a token store.
  bool has_own_tokens() const {
    return config.answers == Answers::Asked || config.answers == Answers::Steps;
  }

  DataConfig config;
  Side side;
  const text::TokenizerBundle& bundle;
  int64_t sequence_length;
  Sources sources;
  std::vector<Preparer> preparers;  ///< one a source
  Mixture mixture;
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
  bool has_target(const Prepared& result, const Example& example, const std::string& origin) const;
  /// Cut to length and with targets; nullopt: left out.
  std::optional<Example> finish(Tokenized tokenized,
                                Prepared& result,
                                const std::string& origin) const;
  Prepared prepare_prompt(int64_t index) const;
  Prepared prepare_steps(int64_t index) const;
  void finish_pair(TokenizedPair pair, Prepared& result, const std::string& origin) const;
  void open_windows();
};

/// What TrainOn means for this layout. ErrorKind::Config when it cannot be.
TrainOn resolve_train_on(const DataConfig& config, Layout layout, bool conversational);

/// Whether the first readable record of a source is a conversation.
bool is_chat(const Sources& sources, size_t part);

/// Everything but the notes of check_sample.
Summary summarize(const Dataset::Impl& data);

/// Prepares a sample of examples and refuses silent wrongness: nothing usable, no end token
/// trained. Adds what is worth saying to the notes. ErrorKind::Data.
void check_sample(const Dataset::Impl& data, std::vector<std::string>& notes);

}  // namespace kamerton::data
