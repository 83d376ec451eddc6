// SPDX-License-Identifier: Apache-2.0
// The endless stream of training batches, and the finite one of evaluation.
//
// Element k of the sample stream is example permutation(seed, epoch = k / size)(k % size), or what
// the mixture of sources draws for it. A global batch has batch_rows rows, its lanes; lane l
// consumes elements l, l + batch_rows, l + 2 batch_rows, ... With packing a row takes the next
// examples of its lane until one does not fit; without, a row is one example. The other strategies
// plan rows over windows of the stream; lane l then takes rows l, l + batch_rows, ... of all
// windows. Rank r of R owns lanes [r batch_rows / R, (r + 1) batch_rows / R). Thus the rows of a
// step do not depend on R.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/data/dataset.h"

namespace kamerton::data {

/// Batches of this rank, prepared one step ahead by a thread of its own (knob `prefetch`).
class TrainStream {
 public:
  /// Opens the training data. Same errors as Dataset and validate(); ErrorKind::Config for records
  /// that compare answers. All ranks call it alike; nothing is communicated.
  TrainStream(const DataConfig& config,
              uint64_t seed,
              const text::TokenizerBundle& bundle,
              int rank,
              int world_size,
              int64_t max_positions);
  ~TrainStream();
  TrainStream(TrainStream&&) noexcept;
  TrainStream& operator=(TrainStream&&) noexcept;

  /// The micro-batches of the next step for this rank: as many on every rank and in every step,
  /// micro_batch_rows rows each, never empty. Rethrows what the preparing thread met.
  std::vector<Batch> next();

  /// Where this rank's lanes stand after the last next(): {"version", "size", "rows", "seed", ...,
  /// "first_lane", "next": [...]}. A checkpoint that another world size may load holds
  /// merge_states() of all ranks' states.
  core::Json state() const;
  /// Takes a state that covers this rank's lanes (its own, or a merged one of any world size). The
  /// next next() gives the step after it. ErrorKind::Data when it belongs to other data, seed or
  /// settings.
  void load_state(const core::Json& state);

  /// The smallest number of steps after which `epochs` passes are consumed; `lengths` (of all
  /// examples) is read with packing only.
  int64_t steps_for_epochs(double epochs, std::span<const int32_t> lengths) const;
  /// Tells the length of every example, which spares planned rows the tokenizing of other ranks'
  /// examples. Changes no row. Before next() or between two.
  void use_lengths(std::vector<int32_t> lengths);

  /// Examples in one epoch.
  int64_t size() const;
  /// Epochs consumed by this rank's lanes so far (mean).
  double epoch() const;
  const Summary& summary() const;
  std::string digest() const;
  const Dataset& dataset() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Joins the states of all ranks, in any order. ErrorKind::Data when lanes are missing or settings
/// differ.
core::Json merge_states(std::span<const core::Json> states);

/// The smallest number of steps after which `epochs` times a data set of one source is consumed.
/// Without packing ceil(epochs * size / batch_rows); `lengths` is not read.
/// With packing the rows are planned over `lengths` (Dataset::lengths of the whole set; skipped
/// examples are 0).
int64_t steps_for_epochs(const DataConfig& config,
                         uint64_t seed,
                         double epochs,
                         int64_t size,
                         std::span<const int32_t> lengths,
                         int64_t sequence_length);

/// Every example once, in order, spread over ranks: rank r takes examples r, r + R, r + 2 R, ...
class EvalStream {
 public:
  EvalStream(const EvalSet& set, int64_t micro_batch_rows, int rank, int world_size);
  /// Batches on each rank: the same everywhere.
  int64_t batches() const;
  /// The next batch, or nullopt at the end. Where a rank has no more examples while others have,
  /// the batch is one example with no targets (target_count 0), so that collectives stay in step.
  std::optional<Batch> next();
  void rewind() { position_ = 0; }

 private:
  const EvalSet* set_;
  int64_t micro_batch_rows_;
  int64_t rank_;
  int64_t world_size_;
  int64_t position_ = 0;
};

}  // namespace kamerton::data
