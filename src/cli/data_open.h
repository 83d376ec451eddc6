// SPDX-License-Identifier: Apache-2.0
// What the data commands share: the run's file, or --model and --data alone.
#pragma once

#include <memory>

#include "kamerton/data/dataset.h"
#include "kamerton/text/bundle.h"

#include "command.h"
#include "run_config.h"

namespace kamerton::cli {

/// --config, --model, --data, --set.
void add_data_options(po::options_description& options,
                      po::positional_options_description& positional);

/// Throws ErrorKind::Config when neither a file nor a model is named.
RunConfig data_config_of(const po::variables_map& arguments, const Command& command);

/// The tokenizer and what the model can take.
struct OpenedModel {
  RunConfig config;
  std::unique_ptr<text::TokenizerBundle> bundle;
  int64_t max_positions = 0;
};
OpenedModel open_model(const po::variables_map& arguments, const Command& command);

struct OpenedData {
  OpenedModel model;
  std::unique_ptr<data::Dataset> set;
};
OpenedData open_data(const po::variables_map& arguments, const Command& command);
OpenedData open_data(OpenedModel model);

/// --threads, or a thread a processor.
int threads_of(const po::variables_map& arguments);

/// Replaces a file by rename. ErrorKind::Output, Io.
void write_text_file(const std::string& path, const std::string& text);

}  // namespace kamerton::cli
