// SPDX-License-Identifier: Apache-2.0
#include "phase.h"

#include <cstdlib>
#include <cstring>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/log.h"
#include "kamerton/objective/objective.h"
#include "kamerton/optim/parameter_groups.h"
#include "kamerton/storage/digest.h"

namespace kamerton::cli {
namespace {

/// Token counts of all examples, each rank its share.
std::vector<int32_t> gather_lengths(const data::Dataset& set, const comm::Group& world) {
  const int64_t size = set.size();
  const auto mine =
      set.lengths(size * world.rank() / world.size(), size * (world.rank() + 1) / world.size());
  std::vector<int32_t> all;
  all.reserve(static_cast<size_t>(size));
  for (const std::string& part : world.all_gather(std::string_view(
           reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(int32_t)))) {
    const size_t begin = all.size();
    all.resize(begin + part.size() / sizeof(int32_t));
    std::memcpy(all.data() + begin, part.data(), part.size());
  }
  return all;
}

int64_t count_steps(const RunConfig& config, data::TrainStream& batches, const comm::Group& world) {
  if (config.train.steps.has_value()) {
    return *config.train.steps;
  }
  std::vector<int32_t> lengths;
  if (config.data.packing) {
    lengths = gather_lengths(batches.dataset(), world);
  }
  const int64_t steps = batches.steps_for_epochs(config.train.epochs.value_or(1.0), lengths);
  batches.use_lengths(std::move(lengths));
  return steps;
}

}  // namespace

Run::Run(const RunConfig& run_config, const comm::Group& group)
    : config(run_config),
      world(group),
      mesh(mesh::build(config.mesh, world)),
      bundle(text::load_bundle(config.model.path)),
      tuned(build_tuned(config)) {
  optim::check_groups(config.optim, tuned.decoder->units());
}

Phase::Phase(const Run& run, const RunConfig& phase_config, int64_t phase_number)
    : config(phase_config),
      number(phase_number),
      batches(config.data,
              run.seed(),
              run.bundle,
              run.world.rank(),
              run.world.size(),
              run.max_positions()),
      held_out(data::has_eval(config.data)
                   ? std::optional(data::open_eval(config.data, run.bundle, run.max_positions()))
                   : std::nullopt),
      total_steps(count_steps(config, batches, run.world)) {}

RunConfig config_of_task(const RunConfig& config, size_t task) {
  RunConfig own = config;
  const train::TaskConfig& wish = config.tasks[task];
  own.name = fmt::format("{}/{}-{}", config.name, task + 1, wish.name);
  own.data.train = wish.train;
  if (!wish.eval.empty()) {
    own.data.eval = wish.eval;
  }
  if (wish.steps.has_value() || wish.epochs.has_value()) {
    own.train.steps = wish.steps;
    own.train.epochs = wish.epochs;
  }
  own.tasks.clear();
  if (own.tuning.half.redraw == "task") {
    own.tuning.half.redraw = "never";  // within the task
  }
  return own;
}

int64_t steps_of_epoch(const Run& run, const Phase& phase) {
  if (!run.tuned.half.has_value() || phase.config.tuning.half.redraw != "epoch") {
    return 1;
  }
  std::vector<int32_t> lengths;
  if (phase.config.data.packing) {
    lengths = gather_lengths(phase.batches.dataset(), run.world);
  }
  return phase.batches.steps_for_epochs(1.0, lengths);
}

train::RunIdentity identity_of(const Run& run, const Phase& phase) {
  return {
      .config_yaml = config::dump(phase.config),
      .base_model = phase.config.model.path,
      .method = phase.config.tuning.method,
      .total_steps = phase.total_steps,
      .details_json = core::Json{{"tokenizer_digest",
                                  storage::to_hex(storage::digest_of(run.bundle.digest_text()))},
                                 {"world_size", run.world.size()},
                                 {"zero_stage", phase.config.optim.zero_stage}}
                          .dump()};
}

checkpoint::StoreOptions store_options(const RunConfig& config) {
  const char* job = std::getenv("SLURM_JOB_ID");  // a requeued job takes its own lock over
  return {.keep = config.train.checkpoint.keep,
          .owner = job == nullptr ? "" : std::string("slurm-") + job,
          .program_version = KAMERTON_VERSION};
}

data::EvalSet open_other(const RunConfig& config,
                         const std::vector<std::string>& files,
                         const text::TokenizerBundle& bundle,
                         int64_t max_positions) {
  data::DataConfig other = config.data;
  other.eval = files;
  other.validation_fraction = 0;
  other.sources.clear();
  other.replay.reset();
  other.answers = data::Answers::One;
  other.margins = false;
  other.text_windows = false;
  other.store = other.store == "require" ? "auto" : other.store;  // said of the run's own data
  other.layout = "auto";
  other.train_on = "auto";
  return data::open_eval(other, bundle, max_positions);
}

std::vector<std::string> kept_files(const RunConfig& config, int64_t number) {
  std::vector<std::string> files =
      config.keep.ewc.files.empty() ? config.keep.replay.files : config.keep.ewc.files;
  for (size_t task = 0; task < config.tasks.size() && static_cast<int64_t>(task) < number; ++task) {
    const std::vector<std::string>& own = config.tasks[task].train;
    files.insert(files.end(), own.begin(), own.end());
  }
  return files;
}

void measure_importance(const Run& run,
                        const std::vector<std::string>& files,
                        optim::ShardedParameters& parameters) {
  const data::EvalSet set = open_other(run.config, files, run.bundle, run.max_positions());
  const int64_t ranks = run.world.size();
  const int64_t wanted = std::min(set.size(), run.config.keep.ewc.examples);
  const int64_t passes = (wanted + ranks - 1) / ranks;
  const int64_t examples = std::min(passes * ranks, set.size());
  core::log_info(fmt::format("importance of each weight from {} example(s)", examples));
  data::EvalStream stream(set, 1, run.world.rank(), run.world.size());
  objective::TokenLoss objective;
  parameters.measure_importance(passes, examples, [&](int64_t index) {
    if (index == 0) {
      stream.rewind();
    }
    const std::optional<data::Batch> batch = stream.next();
    objective.loss(*run.tuned.decoder, *batch, {.target = 1.0}).backward();
  });
}

}  // namespace kamerton::cli
