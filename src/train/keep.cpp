// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/keep.h"

#include <set>

#include "kamerton/core/error.h"

namespace kamerton::train {
namespace {

[[noreturn]] void refuse(const std::string& what,
                         const std::string& got,
                         const std::string& allowed) {
  throw core::Error(core::ErrorKind::Config,
                    {.where = "train.keep", .what = what, .got = got, .allowed = allowed});
}

}  // namespace

void describe(config::Fields& f, ReplayConfig& c) {
  f.knob(
      "files",
      c.files,
      {.text = "general data (or that of earlier tasks) that is mixed into the run's own, in any "
               "form that data.train takes"});
  f.knob("ratio",
         c.ratio,
         {.text = "share of the examples of each pass that are replayed",
          .cost = "a pass gets longer by it",
          .min = 0,
          .max = 0.95,
          .min_exclusive = true});
  f.knob("choose",
         c.choose,
         {.text = "which records: at random, or those whose words are most like those of the run's "
                  "own data",
          .cost = "similar: both are read once at the start",
          .choices = {"random", "similar"}});
  f.knob("kl",
         c.kl,
         {.text = "adds kl x KL(start model || model) at each target of replayed records (learning "
                  "without forgetting, arXiv 1606.09282); 0: none",
          .cost = "a forward pass of the start model: a new adapter is switched off for it; else a "
                  "copy of the model (at ZeRO 3 cut over the ranks)",
          .min = 0});
}

void describe(config::Fields& f, EwcConfig& c) {
  f.knob(
      "strength",
      c.strength,
      {.text = "elastic weight consolidation (arXiv 1612.00796): adds strength / 2 x importance x "
               "(weight - start)^2 of each weight; 0: none",
       .cost = "8 bytes a trained element, cut over ranks as the optimizer's state is",
       .min = 0});
  f.knob(
      "files",
      c.files,
      {.text = "data of what shall be kept, from which importance is measured (squared gradients) "
               "at the start; none: keep.replay.files, or the earlier tasks' data",
       .cost = "a forward and backward pass of each example"});
  f.knob("examples", c.examples, {.text = "how many of them at most", .min = 1});
}

void describe(config::Fields& f, KeepConfig& c) {
  f.section("replay", c.replay, "Rehearsal: general data mixed in.");
  f.knob("l2",
         c.l2,
         {.text = "adds l2 / 2 x (weight - start)^2 of each trained weight (L2-SP, arXiv "
                  "1802.01483); 0: none",
          .cost = "4 bytes a trained element, cut over ranks as the optimizer's state is",
          .min = 0});
  f.section("ewc", c.ewc, "Elastic weight consolidation.");
}

void describe(config::Fields& f, StopIf& c) {
  f.knob(
      "loss_increase",
      c.loss_increase,
      {.text = "the run ends when the loss on this set is more than this above what it was before "
               "training",
       .unit = "nats a token",
       .min = 0});
  f.knob("action",
         c.action,
         {.text = "stop: the run ends with the weights it has; rollback: with those of the best "
                  "evaluation (lowest held-out loss) before any set had lost too much",
          .cost = "rollback: a further checkpoint on disk",
          .choices = {"stop", "rollback"}});
}

void describe(config::Fields& f, WatchConfig& c) {
  f.knob("name", c.name, {.text = "a short name for metrics and the log, such as general"});
  f.knob("files",
         c.files,
         {.text = "held-out data in any form that data.eval takes; its loss is measured before the "
                  "run and at each evaluation",
          .cost = "a forward pass over it at each evaluation"});
  f.section("stop_if", c.stop_if, "When it is enough.");
}

void describe(config::Fields& f, TaskConfig& c) {
  f.knob("name", c.name, {.text = "a short name: its folder in the run's folder is NUMBER-NAME"});
  f.knob("train", c.train, {.text = "training data, instead of data.train"});
  f.knob("eval", c.eval, {.text = "held-out data, instead of data.eval; measured after each task"});
  f.knob(
      "steps", c.steps, {.text = "instead of train.steps", .unit = "optimizer updates", .min = 1});
  f.knob("epochs",
         c.epochs,
         {.text = "instead of train.epochs", .unit = "passes", .min = 0, .min_exclusive = true});
}

namespace {

/// Names of folders and metrics, each once.
void check_names(const std::string& what, const std::vector<std::string>& names) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (name.empty() || name.find_first_of("/ ") != std::string::npos) {
      refuse(what + " needs a name without blanks and slashes", "'" + name + "'", "a short name");
    }
    if (!seen.insert(name).second) {
      refuse("the name of " + what + " is there twice", name, "different names");
    }
  }
}

}  // namespace

void validate(const KeepConfig& keep,
              const std::vector<WatchConfig>& watch,
              const std::vector<TaskConfig>& tasks) {
  if (keep.replay.files.empty() && keep.replay.choose != "random") {
    refuse("keep.replay.choose needs keep.replay.files", keep.replay.choose, "files, or random");
  }
  if (keep.replay.files.empty() && keep.replay.kl > 0) {
    refuse("keep.replay.kl needs keep.replay.files", std::to_string(keep.replay.kl), "files, or 0");
  }
  if (keep.ewc.strength > 0 && keep.ewc.files.empty() && keep.replay.files.empty() &&
      tasks.empty()) {
    refuse("keep.ewc needs data of what shall be kept",
           "no files",
           "keep.ewc.files, keep.replay.files, or tasks");
  }
  std::vector<std::string> names;
  for (const WatchConfig& set : watch) {
    names.push_back(set.name);
    if (set.files.empty()) {
      refuse("a watched set has no files", set.name, "watch: [{name: ..., files: [...]}]");
    }
  }
  check_names("a watched set", names);
  names.clear();
  for (const TaskConfig& task : tasks) {
    names.push_back(task.name);
    if (task.train.empty()) {
      refuse("a task has no training data", task.name, "tasks: [{name: ..., train: [...]}]");
    }
  }
  check_names("a task", names);
}

}  // namespace kamerton::train
