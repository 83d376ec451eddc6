// SPDX-License-Identifier: Apache-2.0
#include "run_config.h"

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"

#include "combinations.h"
#include "names_elsewhere.h"
#include "run_privacy.h"

namespace kamerton::cli {

void describe(config::Fields& fields, TelemetryConfig& config) {
  fields.knob("tensorboard",
              config.tensorboard,
              {.text = "also write TensorBoard event files into the run's folder",
               .cost = "a few hundred bytes a step"});
}

void describe(config::Fields& fields, RunConfig& config) {
  fields.knob(
      "name",
      config.name,
      {.text = "the run's folder is output/name; the file's name without .yaml when empty"});
  fields.knob("output", config.output, {.text = "folder of all runs"});
  fields.section("model", config.model, "The model to tune.");
  fields.section("tuning", config.tuning, "What is trained.");
  fields.section("objective", config.objective, "What is minimised.");
  fields.section("data", config.data, "What it is trained on.");
  fields.section(
      "optim", config.optim, "How weights are updated, and how their state is spread over ranks.");
  fields.section("mesh", config.mesh, "How ranks are arranged.");
  fields.section("train", config.train, "How long the run is and what it writes.");
  fields.section("privacy", config.privacy, "Differential privacy of single records.");
  fields.section("keep", config.keep, "Against forgetting.");
  fields.list("watch", config.watch, "What shall not be forgotten: its loss before and after.");
  fields.list("tasks",
              config.tasks,
              "A sequence: each task starts from the last one's weights, with an optimizer and "
              "schedule of its own.");
  fields.section("telemetry", config.telemetry, "What is recorded.");
  fields.section("federation",
                 config.federation,
                 "Tuning at several sites whose data stay where they are (kamerton federate).");
}

RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides) {
  config::Document document = config::Document::from_file(path);
  for (const std::string& assignment : overrides) {
    document.set(assignment);
  }
  RunConfig config;
  document.fill(config, names_elsewhere());
  if (config.name.empty()) {
    config.name = std::filesystem::path(path).stem().string();
  }
  if (config.name.find('/') != std::string::npos || config.name == "." || config.name == "..") {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.run_config",
                       .what = "'name' is not the name of a folder",
                       .got = "'" + config.name + "'",
                       .allowed = "no slash",
                       .hint = "output: " + config.name});
  }
  tuning::refuse_unused(config.tuning);
  optim::validate(config.optim);
  objective::validate(config.objective);
  train::validate(config.keep, config.watch, config.tasks);
  refuse_combinations(config);
  derive(config);
  check_privacy(config);
  return config;
}

void derive(RunConfig& config) {
  config.optim.l2 = config.keep.l2;
  config.optim.ewc = config.keep.ewc.strength;
  config.optim.sensitivity = config.tuning.method == "adalora" && !config.tuning.adapter.has_value();
  config.optim.method_groups.clear();
  if (config.tuning.method == "lora" && config.tuning.lora.loraplus_lr_ratio != 1.0) {
    config.optim.method_groups = {{.match = R"(.*\.lora_(embedding_)?B(\..*)?)",
                                   .lr_ratio = config.tuning.lora.loraplus_lr_ratio,
                                   .weight_decay = {}}};
  }
  if (!config.keep.replay.files.empty()) {
    config.data.replay = data::ReplaySource{.files = config.keep.replay.files,
                                            .ratio = config.keep.replay.ratio,
                                            .similar = config.keep.replay.choose == "similar"};
  }
  config.data.answers = objective::answers_of(config.objective);
  config.data.margins = config.objective.method == "reward";
  config.model.score_head = objective::scores(config.objective);
  if (config.model.score_head && std::filesystem::exists(config.model.path)) {
    config.model.score_pad = text::load_bundle(config.model.path).pad;
  }
  config.model.value_head = config.objective.method == "ppo";
}

}  // namespace kamerton::cli
