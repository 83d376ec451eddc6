// SPDX-License-Identifier: Apache-2.0
// Checkpoints read by one process: for eval, generate and export.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <ATen/core/ScalarType.h>

#include "kamerton/checkpoint/store.h"

#include "assemble.h"
#include "command.h"

namespace kamerton::cli {

/// A model with whole weights and the folder that holds its tokenizer.
struct InferenceModel {
  std::unique_ptr<model::Decoder> decoder;
  std::string folder;
};

/// From --checkpoint, or --model and --adapter; ErrorKind::Config when neither or both are given.
InferenceModel load_model(const po::variables_map& arguments, const Command& command);

/// A checkpoint opened for reading, and the configuration of the run that saved it.
struct SavedRun {
  checkpoint::Store store;
  int64_t step = 0;
  RunConfig config;
};
/// `base`: replaces the base model's folder of the run's configuration, unless empty.
SavedRun read_saved_run(const std::filesystem::path& checkpoint, const std::string& base);

struct ExportOptions {
  at::ScalarType dtype = at::kBFloat16;
  bool merge = false;
  bool average = false;  ///< the moving average of the weights instead of the weights
  std::string base;      ///< the base model's folder; empty: as the run's config says
};

/// Writes the state of a checkpoint (or of a run's newest) as a PEFT adapter or a Hugging Face
/// model.
void export_checkpoint(const std::filesystem::path& checkpoint,
                       const std::filesystem::path& to,
                       const ExportOptions& options);

/// A run's folder with checkpoints, its checkpoints folder, or one checkpoint.
bool is_checkpoint(const std::filesystem::path& path);

/// Prints what a checkpoint holds. verify: reads every file and compares digests (throws when one
/// differs).
void inspect_checkpoint(const std::filesystem::path& path, bool tensors, bool verify);

}  // namespace kamerton::cli
