// SPDX-License-Identifier: Apache-2.0
#include "update_rule.h"

#include <algorithm>

#include "kamerton/core/error.h"

#include "adafactor.h"
#include "adamw8.h"
#include "apollo.h"
#include "device_update.h"
#include "elementwise_rules.h"
#include "muon.h"

namespace kamerton::optim {

namespace {

/// One row an algorithm: what it keeps, and who does it where.
struct Row {
  const char* name;
  std::vector<StateKind> (*kinds)(const OptimConfig&);
  std::unique_ptr<UpdateRule> (*on_host)(const OptimConfig&);
  std::unique_ptr<UpdateRule> (*on_device)(const OptimConfig&);
  std::vector<SharedKind> (*shared)(const OptimConfig&, const tensor::Parameter&);
};

template <class Rule>
std::unique_ptr<UpdateRule> make(const OptimConfig& config) {
  return std::make_unique<Rule>(config);
}

std::vector<StateKind> adamw_kinds(const OptimConfig&) {
  return {{"exp_avg."}, {"exp_avg_sq."}};
}

std::vector<StateKind> sgd_kinds(const OptimConfig& config) {
  return config.momentum > 0.0 ? std::vector<StateKind>{{"momentum."}} : std::vector<StateKind>{};
}

std::vector<StateKind> no_kinds(const OptimConfig&) {
  return {};
}

std::vector<SharedKind> nothing_shared(const OptimConfig&, const tensor::Parameter&) {
  return {};
}

const Row kRows[] = {
    {"adamw", adamw_kinds, make<Adamw>, make<DeviceUpdate>, nothing_shared},
    {"sgd", sgd_kinds, make<Sgd>, make<DeviceUpdate>, nothing_shared},
    {"adamw8bit", Adamw8::kinds, make<Adamw8>, nullptr, nothing_shared},
    {"muon", Muon::kinds, make<Muon>, nullptr, Muon::shared},
    {"apollo", Apollo::kinds, make<Apollo>, nullptr, Apollo::shared},
    {"adafactor", no_kinds, make<Adafactor>, nullptr, Adafactor::shared},
};

const Row& row_of(const OptimConfig& config) {
  for (const Row& row : kRows) {
    if (config.algorithm == row.name) {
      return row;
    }
  }
  throw core::Error(core::ErrorKind::Config,
                    {.where = "optim.algorithm",
                     .what = "no such update rule",
                     .got = "'" + config.algorithm + "'",
                     .hint = "optim.algorithm: adamw"});
}

}  // namespace

SlotPart within(const FlatSlot& slot, int64_t begin, int64_t length) {
  const int64_t lo = std::max(begin, slot.offset);
  const int64_t hi = std::max(lo, std::min(begin + length, slot.offset + slot.numel));
  return {&slot, lo - slot.offset, hi - lo, lo};
}

const Treatment& treatment_at(const UpdatePart& part, int64_t flat) {
  return std::upper_bound(
             part.segments->begin(),
             part.segments->end(),
             flat,
             [](int64_t position, const Segment& segment) { return position < segment.end; })
      ->treatment;
}

std::vector<StateKind> state_kinds(const OptimConfig& config) {
  std::vector<StateKind> kinds = row_of(config).kinds(config);
  if (config.l2 > 0.0 || config.ewc > 0.0) {
    kinds.push_back({kStart});
  }
  if (config.ewc > 0.0) {
    kinds.push_back({kImportance});
  }
  if (config.ema_decay > 0.0) {
    kinds.push_back({kAverage});
  }
  if (config.sensitivity) {
    kinds.push_back({kSensitivity});
    kinds.push_back({kUncertainty});
  }
  return kinds;
}

std::vector<SharedKind> shared_kinds(const OptimConfig& config,
                                     const tensor::Parameter& parameter) {
  return row_of(config).shared(config, parameter);
}

int64_t shared_bytes(const OptimConfig& config, const tensor::Parameter& parameter) {
  int64_t bytes = 0;
  for (const SharedKind& kind : shared_kinds(config, parameter)) {
    int64_t numel = 1;
    for (const int64_t extent : kind.shape) {
      numel *= extent;
    }
    bytes += 4 * numel;
  }
  return bytes;
}

size_t num_rule_kinds(const OptimConfig& config) {
  return row_of(config).kinds(config).size();
}

int64_t alignment_of(const std::vector<StateKind>& kinds) {
  int64_t alignment = 1;
  for (const StateKind& kind : kinds) {
    alignment = std::max(alignment, kind.block);
  }
  return alignment;
}

int64_t state_bytes(const std::vector<StateKind>& kinds,
                    const tensor::ParamUnit& unit,
                    int64_t elements) {
  int64_t bytes = 0;
  for (const StateKind& kind : kinds) {
    bytes += kind.length(unit, elements) * static_cast<int64_t>(c10::elementSize(kind.dtype));
  }
  return bytes;
}

std::unique_ptr<UpdateRule> make_rule(const OptimConfig& config, at::Device device) {
  const Row& row = row_of(config);
  if (device.is_cpu()) {
    return row.on_host(config);
  }
  if (row.on_device == nullptr) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "optim.algorithm",
                       .what = "this update rule runs on the processor only",
                       .got = config.algorithm + " on " + device.str(),
                       .allowed = "adamw, sgd",
                       .hint = "model.device: cpu"});
  }
  return row.on_device(config);
}

}  // namespace kamerton::optim
