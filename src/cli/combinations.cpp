// SPDX-License-Identifier: Apache-2.0
#include "combinations.h"

#include <algorithm>

#include "kamerton/core/error.h"

namespace kamerton::cli {
namespace {

struct Clash {
  bool applies = false;
  const char* one = "";
  const char* other = "";
  const char* why = "";
  const char* hint = "";
};

bool rolls_back(const RunConfig& config) {
  return std::any_of(config.watch.begin(), config.watch.end(), [](const train::WatchConfig& watch) {
    return watch.stop_if.loss_increase.has_value() && watch.stop_if.action == "rollback";
  });
}

std::vector<Clash> of_redraws(const RunConfig& config) {
  const bool half = config.tuning.method == "half";
  const bool redraws = half && config.tuning.half.redraw != "never";
  return {
      {redraws && config.keep.l2 > 0,
       "keep.l2",
       "tuning.half.redraw",
       "a weight that wakes up has no start to be held near",
       "tuning.half.redraw: never"},
      {redraws && config.keep.ewc.strength > 0,
       "keep.ewc",
       "tuning.half.redraw",
       "importance is measured for the weights that are trained at the start",
       "tuning.half.redraw: never"},
      {redraws && config.optim.ema_decay > 0,
       "optim.ema_decay",
       "tuning.half.redraw",
       "the average of a weight that sleeps would stand still",
       "tuning.half.redraw: never"},
      {redraws && rolls_back(config),
       "watch.stop_if.action: rollback",
       "tuning.half.redraw",
       "the best checkpoint may belong to another half",
       "action: stop"},
      {config.tuning.half.redraw == "task" && half && config.tasks.empty(),
       "tuning.half.redraw: task",
       "a run without tasks",
       "there is only one",
       "redraw: epoch, or never"},
      {redraws && config.optim.algorithm != "adamw" && config.optim.algorithm != "sgd" &&
           config.optim.algorithm != "adamw8bit",
       "this optim.algorithm",
       "tuning.half.redraw",
       "its state belongs to whole matrices and does not move",
       "adamw, adamw8bit or sgd, or tuning.half.redraw: never"},
      {config.tuning.half.redraw == "epoch" && redraws && !config.tasks.empty(),
       "tuning.half.redraw: epoch",
       "tasks",
       "a task would not know which half the last one ended with",
       "redraw: task, or never"},
  };
}

std::vector<Clash> of_others(const RunConfig& config) {
  const bool adapter = tuning::is_adapter(config.tuning.method);
  const bool other_answers = objective::evaluates_itself(config.objective);
  return {
      {config.tuning.method == "half" && config.tuning.quantize != "none",
       "tuning.quantize",
       "tuning.method: half",
       "what sleeps now may be trained after the next draw",
       "tuning.method: lora"},
      {config.tuning.neftune_noise_alpha > 0 && objective::generates(config.objective),
       "tuning.neftune_noise_alpha",
       "an objective that generates answers",
       "the model that learns would differ from the one that answers",
       "tuning.neftune_noise_alpha: 0"},
      {config.tuning.lora.loraplus_lr_ratio != 1.0 &&
           (config.tuning.method != "lora" || config.tuning.lora.freeze_a),
       "tuning.lora.loraplus_lr_ratio",
       config.tuning.method == "lora" ? "tuning.lora.freeze_a" : "this tuning.method",
       "it is the ratio of B's learning rate to A's",
       "tuning.method: lora with both factors trained"},
      {adapter && config.keep.ewc.strength > 0,
       "keep.ewc",
       "an adapter",
       "its factors start at zero, where their importance says nothing of the base model",
       "tuning.method: full or half"},
      {objective::scores(config.objective) && !config.watch.empty(),
       "watch",
       "an objective that trains a score",
       "the model has no token loss then",
       "objective.method: sft"},
      {objective::answers_of(config.objective) != data::Answers::One &&
           !config.keep.replay.files.empty(),
       "keep.replay",
       "an objective that compares, judges or generates answers",
       "replayed records have one answer",
       "objective.method: sft"},
      {other_answers && !config.tasks.empty(),
       "tasks",
       "an objective that compares, judges or generates answers",
       "what is kept of earlier tasks is measured by the loss of single answers",
       "a run for each task with objective.method: sft"},
      {config.keep.replay.kl > 0 && !config.tasks.empty(),
       "keep.replay.kl",
       "tasks",
       "each task starts from the last one's weights, of which there is no copy",
       "keep.l2, or a run for each task"},
      {config.keep.replay.kl > 0 && config.objective.method == "distill",
       "keep.replay.kl",
       "objective.method: distill",
       "replayed records would have two teachers",
       "keep.replay.kl: 0"},
      {!config.tasks.empty() && (!config.data.train.empty() || !config.data.sources.empty()),
       "tasks",
       "data.train or data.sources",
       "each task brings its own training data",
       "tasks.0.train: [...]"},
  };
}

std::vector<Clash> of_privacy(const RunConfig& config) {
  const bool hides = config.privacy.enabled();
  return {
      {hides && !config.tasks.empty(),
       "privacy.unit: record",
       "tasks",
       "each task would need a budget of its own",
       "a run for each task"},
      {hides && !config.keep.replay.files.empty(),
       "privacy.unit: record",
       "keep.replay",
       "replayed records are drawn more often than once a pass",
       "keep.l2"},
      {hides && (config.keep.l2 > 0 || config.keep.ewc.strength > 0),
       "privacy.unit: record",
       "keep.l2 or keep.ewc",
       "only the gradients of records are clipped and hidden",
       "optim.weight_decay"},
      {hides && config.tuning.method == "half" && config.tuning.half.redraw != "never",
       "privacy.unit: record",
       "tuning.half.redraw",
       "what is clipped would change within the run",
       "tuning.half.redraw: never"},
  };
}

void refuse(const std::vector<Clash>& clashes) {
  for (const Clash& clash : clashes) {
    if (clash.applies) {
      throw core::Error(
          core::ErrorKind::Config,
          {.where = "cli.run_config",
           .what = std::string(clash.one) + " does not go with " + clash.other + ": " + clash.why,
           .got = "both",
           .allowed = "one of them",
           .hint = clash.hint});
    }
  }
}

}  // namespace

void refuse_combinations(const RunConfig& config) {
  refuse(of_redraws(config));
  refuse(of_others(config));
  refuse(of_privacy(config));
}

void refuse_in_federation(const RunConfig& config) {
  constexpr const char* kFederation = "kamerton federate";
  refuse({
      {!config.tasks.empty(), "tasks", kFederation, "rounds have one task", "a federation a task"},
      {!config.watch.empty(),
       "watch",
       kFederation,
       "rounds are watched by their held-out data",
       "data.eval"},
      {!config.keep.replay.files.empty(),
       "keep.replay",
       kFederation,
       "a coordinator would name further files of a site",
       "general data among the site's own"},
      {config.keep.l2 > 0 || config.keep.ewc.strength > 0,
       "keep.l2 or keep.ewc",
       kFederation,
       "each round starts at other weights",
       "federation.method: fedprox"},
      {config.tuning.method == "half" && config.tuning.half.redraw != "never",
       "tuning.half.redraw",
       kFederation,
       "what travels would change between rounds",
       "tuning.half.redraw: never"},
      {config.optim.ema_decay > 0,
       "optim.ema_decay",
       kFederation,
       "the server averages",
       "federation.server"},
  });
}

}  // namespace kamerton::cli
