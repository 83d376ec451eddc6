// SPDX-License-Identifier: Apache-2.0
// Files on disk as a random-access list of examples; memory does not grow with the files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/data/config.h"
#include "kamerton/data/example.h"

namespace kamerton::text {
struct TokenizerBundle;
}

namespace kamerton::data {

/// Of the split by data.validation_fraction.
enum class Side { All, Train, Validation };

/// A source of a mixture.
struct SourceSummary {
  std::string name;
  std::vector<std::string> files;
  std::string layout;
  bool layout_detected = true;
  int64_t examples = 0;
  int64_t drawn = 0;  ///< elements of an epoch
};

/// What was found when the files were opened.
struct Summary {
  std::vector<std::string> files;
  std::vector<SourceSummary> sources;
  /// "messages", "prompt_completion", "alpaca", "sharegpt", "text", "preference",
  /// "unpaired_preference", "prompt"; with several sources of different ones: joined by ", "
  std::string layout;
  bool layout_detected = true;
  std::string train_on;  ///< "all", "completion", "assistant"
  std::string mask;      ///< how trained tokens are found, in words
  int64_t examples = 0;
  int64_t bytes = 0;
  int64_t sequence_length = 0;
  /// Further lines worth saying once (a chat template that raw text passes by, skipped records,
  /// ...).
  std::vector<std::string> notes;
  /// The above as lines for a header.
  std::string text() const;
};

/// What happened to examples since the data set was opened, on this rank.
struct Counters {
  int64_t examples = 0;   ///< tokenized
  int64_t truncated = 0;  ///< too_long: truncate
  int64_t skipped_too_long = 0;
  int64_t skipped_no_target = 0;
  int64_t skipped_bad = 0;  ///< on_bad_record: skip
};

class Mixture;

/// Immutable after opening; get(), record() and question() may be called from many threads.
/// Every rank opens the same files and finds the same. The bundle must outlive the data set.
class Dataset {
 public:
  /// Opens, indexes and checks `paths`: file form, encoding, layout, and on a sample of examples
  /// that something is trained, that an end token is, and that the chat template allows an exact
  /// mask. ErrorKind::Data (file:line), ErrorKind::Config (a knob that does not fit),
  /// ErrorKind::Io.
  Dataset(const std::vector<std::string>& paths,
          const DataConfig& config,
          const text::TokenizerBundle& bundle,
          int64_t max_positions);
  /// The training data: data.sources or data.train, one side of it.
  Dataset(const DataConfig& config,
          Side side,
          const text::TokenizerBundle& bundle,
          int64_t max_positions);
  ~Dataset();
  Dataset(Dataset&&) noexcept;
  Dataset& operator=(Dataset&&) noexcept;

  int64_t size() const;
  /// Example `index`; its tokens are empty when it is skipped. Errors name file and line, never the
  /// text.
  Example get(int64_t index) const;
  Record record(int64_t index) const;
  /// ErrorKind::Data for raw text, which asks nothing.
  Question question(int64_t index) const;
  /// The raw bytes of the record and where they lie.
  std::string raw(int64_t index) const;
  std::string origin(int64_t index) const;

  /// Tokens of examples [begin, end), 0 for a skipped one: what packing needs. Each rank may do a
  /// range and gather. Of preferences: of both answers' sequences.
  std::vector<int32_t> lengths(int64_t begin, int64_t end) const;

  const Summary& summary() const;
  /// As the objective wants it: what examples are.
  Answers answers() const;
  /// The most tokens of a row: the sequence length, where examples have two answers twice that.
  int64_t row_length() const;
  /// Number in summary().sources of the source that an example comes from.
  size_t source_of(int64_t index) const;
  /// Which example comes when.
  const Mixture& mixture() const;
  Counters counters() const;
  /// Of sizes, heads and tails of the files, settings and tokenizer: differs when the data may
  /// differ.
  std::string digest() const;
  const text::TokenizerBundle& bundle() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }  ///< for the rest of this module

 private:
  std::unique_ptr<Impl> impl_;
};

/// Held-out examples are a data set read in order.
using EvalSet = Dataset;

/// Data sets of the run: the training side of data.sources or data.train, and data.eval or the
/// validation side. ErrorKind::Config when there are no files.
Dataset open_train(const DataConfig& config,
                   const text::TokenizerBundle& bundle,
                   int64_t max_positions);
EvalSet open_eval(const DataConfig& config,
                  const text::TokenizerBundle& bundle,
                  int64_t max_positions);

}  // namespace kamerton::data
