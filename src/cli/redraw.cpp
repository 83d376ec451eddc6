// SPDX-License-Identifier: Apache-2.0
#include "redraw.h"

#include <algorithm>

#include <fmt/format.h>

#include "kamerton/core/format.h"
#include "kamerton/core/log.h"

namespace kamerton::cli {
namespace {

optim::StateOnRetarget policy_of(const tuning::HalfConfig& config) {
  if (config.state == "drop") {
    return optim::StateOnRetarget::Drop;
  }
  return config.state == "restore" ? optim::StateOnRetarget::Restore : optim::StateOnRetarget::Keep;
}

}  // namespace

Redraw::Redraw(const RunConfig& config,
               const Tuned& tuned,
               optim::ShardedParameters& parameters,
               int64_t first,
               int64_t epoch_steps)
    : config_(config),
      tuned_(tuned),
      parameters_(parameters),
      epoch_steps_(std::max<int64_t>(epoch_steps, 1)),
      now_(first) {}

int64_t Redraw::draw_of(int64_t step) const {
  const bool by_epoch = tuned_.half.has_value() && config_.tuning.half.redraw == "epoch";
  return by_epoch ? (step - 1) / epoch_steps_ : now_;
}

void Redraw::change_to(int64_t draw) {
  const tuning::HalfDraws::Set drawn = tuned_.half->draw(draw);
  parameters_.retarget(
      [&drawn](const tensor::Parameter& parameter) { return drawn.contains(&parameter); },
      policy_of(config_.tuning.half));
  now_ = draw;
}

void Redraw::before_step(int64_t step, const comm::Group& world) {
  const int64_t draw = draw_of(step);
  if (draw == now_) {
    return;
  }
  change_to(draw);
  if (world.rank() == 0) {
    const ParameterCounts counts = count_parameters(*tuned_.decoder);
    core::log_info(fmt::format(
        "draw {} from step {} on: {} parameters trained, optimizer state of this rank {}",
        draw,
        step,
        core::format_count(static_cast<double>(counts.trainable)),
        core::format_bytes(static_cast<uint64_t>(parameters_.bytes().optimizer_state))));
  }
}

void Redraw::catch_up(int64_t steps) {
  while (steps > 0 && now_ < draw_of(steps)) {
    change_to(now_ + 1);
  }
}

}  // namespace kamerton::cli
