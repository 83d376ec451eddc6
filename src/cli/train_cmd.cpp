// SPDX-License-Identifier: Apache-2.0
// kamerton train: each line uses only the lines above it.
#include <cstring>
#include <filesystem>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/comm/watchdog.h"
#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/core/log.h"
#include "kamerton/eval/evaluator.h"
#include "kamerton/mesh/mesh.h"
#include "kamerton/mesh/threads.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/telemetry/memory.h"
#include "kamerton/tensor/allocator.h"
#include "kamerton/train/loop.h"
#include "kamerton/train/signals.h"

#include "assemble.h"
#include "command.h"
#include "data_check.h"
#include "on_first_rank.h"
#include "run_objective.h"
#include "run_privacy.h"
#include "run_reporter.h"
#include "streamed_model.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;

/// A run that exists is not overwritten by accident. Collective.
void refuse_existing_run(const RunConfig& config, bool resume, const comm::Group& world) {
  on_first_rank(world, [&] {
    if (!resume && fs::exists(config.folder() / "metrics.jsonl")) {
      throw Error(ErrorKind::Output,
                  {.where = "cli.train",
                   .what = "this run exists already",
                   .got = config.folder().string(),
                   .hint = "--resume to go on, --set name=NEW, or remove the folder"});
    }
  });
}

/// Makes the run's folder with the resolved configuration. Collective.
void make_folder(const RunConfig& config, const comm::Group& world) {
  on_first_rank(world, [&] {
    storage::posix_filesystem().make_directories(config.folder() / "checkpoints");
    storage::write_file_atomic(
        storage::posix_filesystem(), config.folder() / "config.yaml", config::dump(config));
  });
}

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

train::RunIdentity identity_of(const RunConfig& config,
                               const text::TokenizerBundle& bundle,
                               int64_t total_steps,
                               const comm::Group& world) {
  return {.config_yaml = config::dump(config),
          .base_model = config.model.path,
          .method = config.tuning.method,
          .total_steps = total_steps,
          .details_json = core::Json{{"tokenizer_digest",
                                      storage::to_hex(storage::digest_of(bundle.digest_text()))},
                                     {"world_size", world.size()},
                                     {"zero_stage", config.optim.zero_stage}}
                              .dump()};
}

checkpoint::StoreOptions store_options(const RunConfig& config) {
  const char* job = std::getenv("SLURM_JOB_ID");  // a requeued job takes its own lock over
  return {.keep = config.train.checkpoint.keep,
          .owner = job == nullptr ? "" : std::string("slurm-") + job,
          .program_version = KAMERTON_VERSION};
}

/// What a user takes away: the adapter, at once in PEFT's form; a reward model whole, from the last
/// checkpoint. Collective.
void write_result(const RunConfig& config,
                  const Tuned& tuned,
                  optim::ShardedParameters& parameters,
                  const comm::Group& world) {
  if (objective::scores(config.objective)) {
    on_first_rank(world, [&] {
      const StreamedModel source = stream_checkpoint(config.folder(), config.model.path);
      model::save_model((config.folder() / "model").string(),
                        *source.decoder,
                        source.fetch,
                        {.copy_from = source.folder});
    });
    return;
  }
  if (!tuned.adapter.has_value()) {
    return;
  }
  const auto base = model::open_weights(config.model, *tuned.decoder);
  tuning::write_peft(
      config.folder() / "adapter",
      *tuned.adapter,
      config.model.path,
      [&parameters](const tensor::Parameter& parameter) { return parameters.fetch(parameter); },
      world.rank() == 0,
      {static_cast<uint64_t>(config.train.seed), base_reader(*base)});
}

constexpr const char* kKeysTitle =
    "# Every key of a run's file\n"
    "Written by `kamerton train --keys-markdown`; a test compares. `recipes/` has complete runs, "
    "`debug/` tiny ones, `quickstart/` the first\n"
    "one. `--set section.key=value` changes a key on the command line.\n\n";

/// --keys and --keys-markdown: the configuration's documentation.
void show_keys(const po::variables_map& arguments, const comm::Group& world) {
  if (world.rank() != 0) {
    return;
  }
  RunConfig defaults;
  const auto describe_all = [&defaults](config::Fields& fields) { describe(fields, defaults); };
  const std::string text =
      arguments.count("keys") != 0
          ? config::help_text(describe_all, arguments["keys"].as<std::string>())
          : std::string(kKeysTitle) + config::help_markdown(describe_all);
  std::fputs(text.c_str(), stdout);
}

/// What a run is made of; each member uses only those above it.
struct Run {
  const RunConfig& config;
  const comm::Group& world;
  mesh::Mesh mesh;
  text::TokenizerBundle bundle;
  Tuned tuned;
  data::TrainStream batches;
  std::optional<data::EvalSet> held_out;
  int64_t total_steps;

  Run(const RunConfig& run_config, const comm::Group& group)
      : config(run_config),
        world(group),
        mesh(mesh::build(config.mesh, world)),
        bundle(text::load_bundle(config.model.path)),
        tuned(build_tuned(config)),
        batches(config.data, seed(), bundle, world.rank(), world.size(), max_positions()),
        held_out(data::has_eval(config.data)
                     ? std::optional(data::open_eval(config.data, bundle, max_positions()))
                     : std::nullopt),
        total_steps(count_steps(config, batches, world)) {}

  uint64_t seed() const { return static_cast<uint64_t>(config.train.seed); }
  int64_t max_positions() const { return tuned.decoder->config().max_positions; }
};

/// Gives the parameters memory and fills it; the base model's files are closed again at the end
/// (their pages count as ours).
std::unique_ptr<optim::ShardedParameters> place(Run& run) {
  model::Decoder& decoder = *run.tuned.decoder;
  auto parameters = std::make_unique<optim::ShardedParameters>(
      decoder.units(),
      optim::ShardGroups{run.mesh.shard(), run.mesh.replicate()},
      run.config.optim,
      decoder.dtype(),
      decoder.device());
  decoder.set_hooks(parameters.get());
  const auto weights = model::open_weights(run.config.model, decoder);
  parameters->load(filler(run.config, run.tuned, *weights));
  fill_packed(run.config, run.tuned, *weights);
  return parameters;
}

/// On the held-out examples. Collective.
train::EvalDone evaluate(const Run& run, const train::Parts& parts, int64_t step) {
  const int64_t rows = run.config.data.micro_batch_rows;
  if (objective::evaluates_itself(run.config.objective)) {
    const eval::ObjectiveReport report =
        eval::evaluate_objective(parts.model, parts.objective, *run.held_out, rows, run.world);
    return {step, report.loss, report.metrics};
  }
  const eval::LossReport report = eval::evaluate_loss(parts.model, *run.held_out, rows, run.world);
  return {step, report.loss(), {{"perplexity", report.perplexity()}}};
}

/// From placed parameters to the end of the run.
int go(Run& run,
       optim::ShardedParameters& parameters,
       RunObjective& objective,
       bool resume,
       comm::Session& session,
       const std::string& threads) {
  const RunConfig& config = run.config;
  train::Snapshots snapshots(config.folder() / "checkpoints",
                             run.world,
                             parameters,
                             run.batches,
                             identity_of(config, run.bundle, run.total_steps, run.world),
                             store_options(config),
                             &objective.get());
  train::Progress progress;
  if (resume) {
    progress = snapshots.resume().value_or(progress);
  }
  const optim::MemoryPlan plan = plan_run(config, run.tuned, run.mesh.shard().size());
  RunReporter reporter(config, run.world, progress.step, run.total_steps);
  std::optional<train::RecordPrivacy> privacy =
      open_privacy(config, run.batches.size(), run.batches.digest(), run.total_steps, run.world);
  reporter.header({.model = describe(run.tuned),
                   .objective = objective.text(),
                   .data = run.batches.summary().text(),
                   .mesh = run.mesh.describe(),
                   .threads = threads,
                   .memory = optim::to_text(plan),
                   .privacy = privacy.has_value() ? privacy->text() : ""});

  train::Parts parts{
      .config = config.train,
      .optim_config = config.optim,
      .world = run.world,
      .model = *run.tuned.decoder,
      .objective = objective.get(),
      .parameters = parameters,
      .batches = run.batches,
      .dropout = run.tuned.adapter.has_value() ? &run.tuned.adapter->dropout_keys() : nullptr,
      .snapshots = &snapshots,
      .begin_step = {},
      .evaluate = {},
      .emit = [&reporter](const train::Event& event) { reporter.on(event); },
      .privacy = privacy.has_value() ? &*privacy : nullptr};
  parts.begin_step = [&](int64_t step) {
    session.watchdog().note_step(step);
    return comm::fault_at_step(session.fault(), run.world.rank(), step) == comm::FaultAction::Nan;
  };
  if (run.held_out.has_value()) {
    parts.evaluate = [&](int64_t step) { return evaluate(run, parts, step); };
  }
  if (train::run_loop(parts, progress, run.total_steps) == train::Outcome::Preempted) {
    reporter.farewell("saved; go on with --resume");
    return core::exit_code(ErrorKind::Preempted);
  }
  write_result(config, run.tuned, parameters, run.world);
  reporter.finish(plan, parameters.bytes(), run.tuned.adapter.has_value());
  return 0;
}

int run_train(const po::variables_map& arguments, comm::Session* session) {
  static const Command self = train_command();
  const comm::Group& world = session->world();
  if (arguments.count("keys") + arguments.count("keys-markdown") != 0) {
    show_keys(arguments, world);
    return 0;
  }
  const RunConfig config =
      load_run_config(required(arguments, "config", self),
                      value_or<std::vector<std::string>>(arguments, "set", {}));
  const bool resume = arguments.count("resume") != 0;
  refuse_existing_run(config, resume, world);
  const std::string threads = mesh::choose_threads(session->topology());

  const comm::Group ranks = device_world(config.model.device, *session, config.train.watchdog_s);
  Run run(config,
          ranks);  // what is wrong with config or data shows here, before anything is written
  on_first_rank(world, [&] {
    check_data(config.data, run.batches.dataset(), run.held_out ? &*run.held_out : nullptr);
  });
  make_folder(config, world);
  session->set_report_folder(config.folder());
  session->watchdog().start(config.folder(), config.train.watchdog_s);
  train::catch_stop_signals();

  const auto parameters = place(run);
  RunObjective objective(config,
                         {.tuned = run.tuned,
                          .parameters = *parameters,
                          .groups = {run.mesh.shard(), run.mesh.replicate()},
                          .world = run.world,
                          .train = run.batches.dataset(),
                          .held_out = run.held_out.has_value() ? &*run.held_out : nullptr});
  return go(run, *parameters, objective, resume, *session, threads);
}

}  // namespace

Command train_command() {
  return {.name = "train",
          .summary = "one run from a YAML file, on one rank or many",
          .usage =
              "kamerton train RUN.yaml [--set KEY=VALUE]... [--resume] | kamerton train --keys "
              "[SECTION]",
          .description =
              "Writes runs/NAME/: config.yaml, metrics.jsonl, tensorboard/, checkpoints/, and "
              "adapter/ (LoRA). SIGTERM and SIGUSR1 save at the\n"
              "next step and end with code 75; --resume goes on from there, on any number of "
              "ranks.\n\nExamples:\n"
              "  kamerton train configs/quickstart/run.yaml\n"
              "  mpirun -np 2 kamerton train configs/quickstart/run.yaml --set optim.lr=1e-3 --set "
              "name=faster\n"
              "  launch/kamerton-run -n 4 -- train configs/quickstart/run.yaml --resume\n"
              "  kamerton train --keys optim",
          .needs_ranks = true,
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()("config", po::value<std::string>(), "the run's YAML file")(
                    "set",
                    po::value<std::vector<std::string>>(),
                    "KEY=VALUE over the file's, such as optim.lr=1e-4; may be repeated")(
                    "resume",
                    "go on from the newest complete checkpoint; from the start when there is none")(
                    "keys",
                    po::value<std::string>()->implicit_value(""),
                    "list all keys (or a section's) with default, range and cost")(
                    "keys-markdown", "the same as Markdown: configs/README.md");
                positional.add("config", 1);
              },
          .run = run_train};
}

}  // namespace kamerton::cli
