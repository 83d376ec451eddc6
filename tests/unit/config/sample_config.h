// SPDX-License-Identifier: Apache-2.0
// A configuration with one knob of every kind.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::config::sample {

struct Source {
  std::string path = "x.jsonl";
  double weight = 1.0;
  bool operator==(const Source&) const = default;
};

inline void describe(Fields& f, Source& c) {
  f.knob("path", c.path, {.text = "The file."});
  f.knob("weight", c.weight, {.text = "Its share.", .min = 0, .min_exclusive = true});
}

struct Schedule {
  std::string kind = "cosine";
  int64_t warmup = 10;
  bool operator==(const Schedule&) const = default;
};

inline void describe(Fields& f, Schedule& c) {
  f.knob("kind", c.kind, {.text = "Its shape.", .choices = {"cosine", "linear", "constant"}});
  f.knob("warmup", c.warmup, {.text = "Rise of the rate.", .unit = "optimizer updates", .min = 0});
}

struct Optim {
  double lr = 1e-4;
  std::vector<double> betas = {0.9, 0.95};
  Schedule schedule;
  bool operator==(const Optim&) const = default;
};

inline void describe(Fields& f, Optim& c) {
  f.knob("lr",
         c.lr,
         {.text = "Peak learning rate.",
          .cost = "too high a rate diverges",
          .min = 0,
          .max = 1,
          .min_exclusive = true});
  f.knob("betas", c.betas, {.text = "Decay of the moments.", .min = 0, .max = 1});
  f.section("schedule", c.schedule, "How the rate changes.");
}

struct Config {
  std::string name = "run";
  bool fast = false;
  int64_t steps = 100;
  std::vector<std::string> targets = {"q_proj", "v_proj"};
  std::optional<int64_t> seed;
  std::optional<double> clip = 1.0;
  std::optional<std::string> init;
  Optim optim;
  std::vector<Source> sources = {Source{"a.jsonl", 2.0}, Source{"b.jsonl", 3.0}};
  bool operator==(const Config&) const = default;
};

inline void describe(Fields& f, Config& c) {
  f.knob("name", c.name, {.text = "Names the run."});
  f.knob("fast", c.fast, {.text = "Hurries."});
  f.knob(
      "steps", c.steps, {.text = "How long.", .unit = "optimizer updates", .min = 1, .max = 1e9});
  f.knob("targets", c.targets, {.text = "Which linears."});
  f.knob("seed", c.seed, {.text = "Fixes the draw.", .min = 0});
  f.knob("clip", c.clip, {.text = "Largest norm.", .min = 0, .min_exclusive = true});
  f.knob("init", c.init, {.text = "Where to start | from."});
  f.section("optim", c.optim, "The update rule.");
  f.list("sources", c.sources, "Where rows come from");
}

}  // namespace kamerton::config::sample
