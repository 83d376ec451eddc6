// SPDX-License-Identifier: Apache-2.0
// Where examples come from and how they become rows of tokens.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::data {

struct DataConfig {
  std::vector<std::string> train;
  std::vector<std::string> eval;
  std::string format = "auto";
  std::string layout = "auto";
  std::string train_on = "auto";
  std::optional<int64_t> sequence_length;
  std::string too_long = "truncate";
  std::string on_no_target = "error";
  bool require_end_token = true;
  bool packing = false;
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
  std::optional<std::string> index_dir;
  std::string verify = "quick";
  std::string store = "auto";
  std::string store_dir = "stores";
};

void describe(config::Fields& fields, DataConfig& config);

/// Throws ErrorKind::Config: rows that ranks or micro-batches do not divide, a sequence length
/// above the model's limit (`max_positions`).
void validate(const DataConfig& config, int world_size, int64_t max_positions);

/// `sequence_length`, or when it is absent the smaller of 1024 and the model's limit.
int64_t resolved_sequence_length(const DataConfig& config, int64_t max_positions);

}  // namespace kamerton::data
