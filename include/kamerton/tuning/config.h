// SPDX-License-Identifier: Apache-2.0
// What is trained: everything, a part, or an adapter on a frozen base.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::tuning {

/// LoRA, arXiv 2106.09685: y = W x + s B (A x), A [r, in], B [out, r], and its relatives.
struct LoraConfig {
  int64_t r = 16;
  double alpha = 32;
  double dropout = 0;
  bool use_rslora = false;
  bool use_dora = false;
  std::string init = "default";
  bool freeze_a = false;
  double loraplus_lr_ratio = 1.0;
  std::vector<std::string> targets = {"all-linear"};
  std::vector<std::string> rank_pattern;
  std::vector<std::string> alpha_pattern;
};

/// Half Fine-Tuning, arXiv 2404.18466: see half.h.
struct HalfConfig {
  std::string level = "category";
  std::string redraw = "never";
  std::string state = "keep";
};

struct TuningConfig {
  std::string method = "lora";
  LoraConfig lora;
  std::vector<std::string> targets;
  std::vector<std::string> exclude;
  std::vector<std::string> settings;
  std::vector<std::string> layers;
  std::vector<std::string> modules_to_save;
  std::string bias = "none";
  std::vector<std::string> train;
  int64_t last_layers = 0;
  HalfConfig half;
  std::optional<std::string> adapter;
  std::vector<std::string> freeze;
  double neftune_noise_alpha = 0;
  std::string quantize = "none";
};

/// The adapters that there are: "lora", "ia3", ...
std::vector<std::string> method_names();
/// True for the methods that put an adapter on a base.
bool is_adapter(const std::string& method);

/// Refuses a key that the method has no use for (ErrorKind::Config). tuning.lora and tuning.half
/// are sections of their methods and stay in a file whatever the method is.
void refuse_unused(const TuningConfig& config);

void describe(config::Fields& fields, LoraConfig& config);
void describe(config::Fields& fields, HalfConfig& config);
void describe(config::Fields& fields, TuningConfig& config);

}  // namespace kamerton::tuning
