// SPDX-License-Identifier: Apache-2.0
#include "watch.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/log.h"
#include "kamerton/eval/evaluator.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::cli {

Watch::Watch(const Run& run) {
  for (const train::WatchConfig& config : run.config.watch) {
    sets_.push_back(
        {&config, open_other(run.config, config.files, run.bundle, run.max_positions())});
  }
}

bool Watch::rolls_back() const {
  return std::any_of(sets_.begin(), sets_.end(), [](const Set& set) {
    return set.config->stop_if.loss_increase.has_value() &&
           set.config->stop_if.action == "rollback";
  });
}

double Watch::loss_of(const Run& run, const Set& set) const {
  return eval::evaluate_loss(
             *run.tuned.decoder, set.data, run.config.data.micro_batch_rows, run.world)
      .loss();
}

void Watch::measure_start(const Run& run) {
  for (Set& set : sets_) {
    set.start = set.now = loss_of(run, set);
    core::log_info(
        fmt::format("watch: {} has loss {:.4f} before the run", set.config->name, set.start));
  }
}

void Watch::measure(const Run& run, train::EvalDone& done) {
  for (Set& set : sets_) {
    set.now = loss_of(run, set);
    const double change = set.now - set.start;
    done.metrics.emplace_back("watch/" + set.config->name + "/loss", set.now);
    done.metrics.emplace_back("watch/" + set.config->name + "/change", change);
    core::log_info(fmt::format("watch: {} has loss {:.4f} after step {}, {:+.4f} since the start",
                               set.config->name,
                               set.now,
                               done.step,
                               change));
  }
}

std::optional<Watch::Breach> Watch::breach() const {
  for (const Set& set : sets_) {
    const train::StopIf& gate = set.config->stop_if;
    const double change = set.now - set.start;
    // A loss that is no number has risen, too.
    if (gate.loss_increase.has_value() && !(change <= *gate.loss_increase)) {
      return Breach{fmt::format("the loss on {} rose by {:.4f}, more than stop_if.loss_increase {}",
                                set.config->name,
                                change,
                                *gate.loss_increase),
                    gate.action == "rollback"};
    }
  }
  return std::nullopt;
}

Best::Best(const Run& run, Phase& phase, optim::ShardedParameters& parameters, const Watch& watch)
    : folder_(phase.config.folder() / "best"), world_(run.world) {
  if (watch.rolls_back()) {
    checkpoint::StoreOptions options = store_options(phase.config);
    options.keep = 1;
    snapshots_.emplace(
        folder_, run.world, parameters, phase.batches, identity_of(run, phase), options);
  }
}

void Best::consider(const train::EvalDone& done, const train::Progress& progress) {
  // Without held-out data of the target the latest is the best.
  const bool better = !loss_.has_value() || std::isnan(done.loss) || done.loss < *loss_;
  if (!snapshots_.has_value() || !better) {
    return;
  }
  snapshots_->save(progress);
  loss_ = done.loss;
  if (world_.rank() == 0) {
    const core::Json note = {{"step", progress.step}, {"loss", done.loss}};
    storage::write_file_atomic(
        storage::posix_filesystem(), folder_ / "best.json", note.dump() + "\n");
  }
}

bool Best::roll_back(train::Snapshots& snapshots, train::Progress& progress) {
  const std::optional<train::Progress> best =
      snapshots_.has_value() ? snapshots_->resume() : std::nullopt;
  if (!best.has_value()) {
    return false;
  }
  progress = *best;
  snapshots.forget_after(progress.step);
  return true;
}

void Best::remember() {
  std::string text;
  if (snapshots_.has_value() && world_.rank() == 0 &&
      std::filesystem::exists(folder_ / "best.json")) {
    text = storage::posix_filesystem().read_file(folder_ / "best.json", 1 << 16);
  }
  text = world_.broadcast(text, 0);
  if (!text.empty()) {
    const core::Json note = core::parse_json(text, "best.json");
    const core::Json* loss = core::json_find(note, "loss");
    loss_ = loss != nullptr && loss->is_number() ? loss->get<double>() : std::nan("");
  }
}

}  // namespace kamerton::cli
