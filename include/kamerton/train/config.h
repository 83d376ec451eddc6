// SPDX-License-Identifier: Apache-2.0
// How long a run is, what it writes and when it stops.
#pragma once

#include <optional>
#include <string>

#include "kamerton/config/field.h"

namespace kamerton::train {

struct CheckpointConfig {
  int64_t every = 0;
  int64_t keep = 2;
  std::string on_save_error = "abort";
};

struct TrainConfig {
  std::optional<int64_t> steps;
  std::optional<double> epochs;
  int64_t seed = 42;
  int64_t eval_every = 0;
  int64_t log_every = 1;
  double watchdog_s = 600;
  CheckpointConfig checkpoint;
};

inline void describe(config::Fields& f, CheckpointConfig& c) {
  f.knob("every",
         c.every,
         {.text = "save after every so many steps; 0: at the end only",
          .unit = "optimizer updates",
          .cost = "the run waits while it saves",
          .min = 0});
  f.knob("keep",
         c.keep,
         {.text = "newest checkpoints that stay on disk; 0: all", .cost = "disk space", .min = 0});
  f.knob("on_save_error",
         c.on_save_error,
         {.text = "what a failed save does (the previous checkpoint stays valid)",
          .choices = {"abort", "continue"}});
}

inline void describe(config::Fields& f, TrainConfig& c) {
  f.knob("steps",
         c.steps,
         {.text = "length of the run; wins over epochs", .unit = "optimizer updates", .min = 1});
  f.knob("epochs",
         c.epochs,
         {.text = "length of the run in passes over the data; 1 when neither is given",
          .unit = "passes",
          .min = 0,
          .min_exclusive = true});
  f.knob("seed",
         c.seed,
         {.text = "keys every random choice: order of data, adapter's start, dropout; same config "
                  "and seed, same bits",
          .min = 0});
  f.knob("eval_every",
         c.eval_every,
         {.text = "evaluate data.eval after every so many steps; 0: at the end only",
          .unit = "optimizer updates",
          .min = 0});
  f.knob("log_every",
         c.log_every,
         {.text = "a progress line every so many steps (metrics.jsonl always has each)",
          .unit = "optimizer updates",
          .min = 1});
  f.knob("watchdog_s",
         c.watchdog_s,
         {.text = "a collective that waits longer than this ends the run and names the rank it "
                  "waited for; 0: never",
          .unit = "seconds",
          .min = 0});
  f.section("checkpoint", c.checkpoint, "Saving and resuming.");
}

}  // namespace kamerton::train
