// SPDX-License-Identifier: Apache-2.0
#include "rank_budget.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::cli {
namespace {

void check_schedule(const optim::RankBudget& budget) {
  const int64_t most = budget.total_steps - budget.last_steps - 1;
  if (budget.first_steps > most) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "tuning.settings",
         .what = "no step is left to prune ranks in",
         .got = fmt::format("tinit = {}, tfinal = {} of {} steps",
                            budget.first_steps,
                            budget.last_steps,
                            budget.total_steps),
         .allowed = "tinit + tfinal below the steps of the schedule (total_step; the run's)",
         .hint = "tuning.settings: [tinit=0, tfinal=0]"});
  }
}

}  // namespace

void set_rank_budget(const RunConfig& config,
                     Tuned& tuned,
                     int64_t total_steps,
                     optim::ShardedParameters& parameters) {
  if (!config.optim.sensitivity || !tuned.adapter.has_value()) {
    return;
  }
  const core::Json& settings = *tuned.adapter->spec().settings;
  const auto count = [&](const char* name) { return settings.at(name).get<int64_t>(); };
  const auto number = [&](const char* name) { return settings.at(name).get<double>(); };
  optim::RankBudget budget;
  budget.target_rank = count("target_r");
  budget.total_steps = count("total_step") > 1 ? count("total_step") : total_steps;
  budget.first_steps = count("tinit");
  budget.last_steps = count("tfinal");
  budget.interval = count("deltaT");
  budget.beta1 = number("beta1");
  budget.beta2 = number("beta2");
  budget.orthogonality = number("orth_reg_weight");
  check_schedule(budget);
  for (const tuning::ModuleTriplets& own : tuned.adapter->triplets()) {
    if (own.a->trainable && own.b->trainable && own.e->trainable) {
      budget.matrices.push_back({own.a, own.b, own.e});
    }
  }
  if (budget.matrices.empty()) {
    return;  // tuning.freeze holds a part of each
  }
  tuned.adapter->settle("total_step", budget.total_steps);
  parameters.set_rank_budget(std::move(budget));
}

}  // namespace kamerton::cli
