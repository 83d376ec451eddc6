// SPDX-License-Identifier: Apache-2.0
// Against forgetting: what holds a run near what the model knew, what is watched, and when it is
// enough.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::train {

/// General data mixed into the run's own.
struct ReplayConfig {
  std::vector<std::string> files;
  double ratio = 0.1;
  std::string choose = "random";
  double kl = 0;
};

/// Elastic weight consolidation, arXiv 1612.00796.
struct EwcConfig {
  double strength = 0;
  std::vector<std::string> files;
  int64_t examples = 256;
};

struct KeepConfig {
  ReplayConfig replay;
  double l2 = 0;
  EwcConfig ewc;
};

/// When a watched set has lost too much.
struct StopIf {
  std::optional<double> loss_increase;
  std::string action = "stop";
};

/// Held-out data of something that shall not be forgotten.
struct WatchConfig {
  std::string name;
  std::vector<std::string> files;
  StopIf stop_if;
};

/// One of a sequence of tasks.
struct TaskConfig {
  std::string name;
  std::vector<std::string> train;
  std::vector<std::string> eval;
  std::optional<int64_t> steps;
  std::optional<double> epochs;
};

void describe(config::Fields& fields, ReplayConfig& config);
void describe(config::Fields& fields, EwcConfig& config);
void describe(config::Fields& fields, KeepConfig& config);
void describe(config::Fields& fields, StopIf& config);
void describe(config::Fields& fields, WatchConfig& config);
void describe(config::Fields& fields, TaskConfig& config);

/// What ranges cannot say. Throws ErrorKind::Config.
void validate(const KeepConfig& keep,
              const std::vector<WatchConfig>& watch,
              const std::vector<TaskConfig>& tasks);

}  // namespace kamerton::train
