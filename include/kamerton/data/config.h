// SPDX-License-Identifier: Apache-2.0
// Where examples come from and how they become rows of tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::data {

/// What the objective does with the answers of records, and so what an example is.
enum class Answers : uint8_t {
  One,     ///< trained on
  Pair,    ///< compared: a better and a worse one
  Judged,  ///< called good or bad, each beside the answer to another prompt (KTO)
  Asked,   ///< made by the model: an example is a prompt
  Steps,   ///< judged step by step: targets are 1 or 0 at each step's last token
};

/// The names that a file gives to the columns of the known layouts.
struct ColumnMap {
  std::optional<std::string> text;
  std::optional<std::string> messages;
  std::optional<std::string> conversations;
  std::optional<std::string> prompt;
  std::optional<std::string> completion;
  std::optional<std::string> chosen;
  std::optional<std::string> rejected;
  std::optional<std::string> label;
  std::optional<std::string> instruction;
  std::optional<std::string> input;
  std::optional<std::string> output;
  std::optional<std::string> system;
  std::optional<std::string> history;
  std::optional<std::string> tools;

  /// {known name, the file's name} for those that are given.
  std::vector<std::pair<std::string, std::string>> given() const;
};

/// One source of a mixture. What it leaves out (auto, no columns) is as in DataConfig.
struct SourceConfig {
  std::string name;
  std::vector<std::string> files;
  std::optional<double> weight;
  std::optional<int64_t> max_examples;
  std::string format = "auto";
  std::string layout = "auto";
  ColumnMap columns;
};

/// General data that is mixed in: `ratio` of all examples of a pass.
struct ReplaySource {
  std::vector<std::string> files;
  double ratio = 0.1;
  bool similar = false;  ///< the records most like the run's own instead of random ones
};

struct DataConfig {
  std::vector<std::string> train;
  std::vector<std::string> eval;
  std::vector<SourceConfig> sources;
  double mixture_temperature = 1.0;
  double validation_fraction = 0.0;
  std::string format = "auto";
  std::string layout = "auto";
  ColumnMap columns;
  std::string train_on = "auto";
  std::optional<int64_t> sequence_length;
  std::string too_long = "truncate";
  std::string on_no_target = "error";
  bool require_end_token = true;
  bool packing = false;
  std::string packing_strategy = "next_fit";
  bool group_by_length = false;
  bool shuffle = true;
  int64_t batch_rows = 8;
  int64_t micro_batch_rows = 1;
  std::string text_split = "blank_lines";
  bool text_windows = false;
  int64_t max_line_bytes = int64_t{64} << 20;
  std::string on_bad_record = "error";
  int64_t max_bad_records = 100;
  int64_t check_bytes = int64_t{256} << 20;
  int64_t template_time = 1721952000;
  int64_t prefetch = 1;
  int64_t max_expansion = 200;
  std::optional<std::string> index_dir;
  std::string verify = "quick";
  std::string store = "auto";
  std::string store_dir = "stores";
  /// No knob: set by the objective.
  Answers answers = Answers::One;
  /// No knob: the objective uses the margins of pairs.
  bool margins = false;
  /// No knob: off where text_windows' documents are wanted and no windows (`data prepare`).
  bool cut_windows = true;
  /// No knob: set by keep.replay.
  std::optional<ReplaySource> replay = {};
};

void describe(config::Fields& fields, ColumnMap& columns);
void describe(config::Fields& fields, SourceConfig& source);
void describe(config::Fields& fields, DataConfig& config);

/// Throws ErrorKind::Config: rows that ranks or micro-batches do not divide, a sequence length
/// above the model's limit (`max_positions`), settings that exclude each other.
void validate(const DataConfig& config, int world_size, int64_t max_positions);

/// `sequence_length`, or when it is absent the smaller of 1024 and the model's limit.
int64_t resolved_sequence_length(const DataConfig& config, int64_t max_positions);

/// Whether examples are cut to rows by packing itself (bfd_split, wrapped) instead of by too_long.
bool packing_splits(const DataConfig& config);

/// Whether there are held-out examples: data.eval, or data.validation_fraction.
bool has_eval(const DataConfig& config);

}  // namespace kamerton::data
