// SPDX-License-Identifier: Apache-2.0
// kamerton train: each line uses only the lines above it.
#include <cmath>
#include <filesystem>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/comm/watchdog.h"
#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/core/log.h"
#include "kamerton/eval/evaluator.h"
#include "kamerton/mesh/threads.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/telemetry/memory.h"
#include "kamerton/tensor/allocator.h"
#include "kamerton/train/loop.h"
#include "kamerton/train/signals.h"

#include "assemble.h"
#include "command.h"
#include "data_check.h"
#include "on_first_rank.h"
#include "phase.h"
#include "rank_budget.h"
#include "redraw.h"
#include "run_objective.h"
#include "run_plan.h"
#include "run_privacy.h"
#include "run_reporter.h"
#include "streamed_model.h"
#include "task_table.h"
#include "watch.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;

/// A run that exists is not overwritten by accident. Collective.
void refuse_existing_run(const RunConfig& config, bool resume, const comm::Group& world) {
  on_first_rank(world, [&] {
    const bool begun =
        fs::exists(config.folder() / "metrics.jsonl") || fs::exists(config.folder() / "tasks.json");
    if (!resume && begun) {
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

/// Gives the parameters memory and fills it; the base model's files are closed again at the end
/// (their pages count as ours).
std::unique_ptr<optim::ShardedParameters> place(Run& run) {
  model::Decoder& decoder = *run.tuned.decoder;
  auto parameters = std::make_unique<optim::ShardedParameters>(
      decoder.units(), run.groups(), run.config.optim, decoder.dtype(), decoder.device());
  decoder.set_hooks(parameters.get());
  const auto weights = model::open_weights(run.config.model, decoder);
  parameters->load(filler(run.config, run.tuned, *weights));
  return parameters;
}

/// On the held-out examples, where there are any, and what is watched. Collective.
train::EvalDone evaluate(
    const Run& run, const Phase& phase, const train::Parts& parts, Watch& watch, int64_t step) {
  const int64_t rows = phase.config.data.micro_batch_rows;
  train::EvalDone done{step, std::nan(""), {}};
  if (phase.held_out.has_value() && objective::evaluates_itself(phase.config.objective)) {
    const eval::ObjectiveReport report =
        eval::evaluate_objective(parts.model, parts.objective, *phase.held_out, rows, run.world);
    done = {step, report.loss, report.metrics};
  } else if (phase.held_out.has_value()) {
    const eval::LossReport report =
        eval::evaluate_loss(parts.model, *phase.held_out, rows, run.world);
    done = {step, report.loss(), {{"perplexity", report.perplexity()}}};
  }
  watch.measure(run, done);
  return done;
}

/// What lasts over all phases of a run.
struct Engine {
  Run& run;
  optim::ShardedParameters& parameters;
  Watch& watch;
  comm::Session& session;
  const std::string& threads;
};

/// A reason to end the phase, when a watched set has lost too much; rolls back where that is asked.
std::optional<std::string> judge(const Watch& watch,
                                 Best& best,
                                 train::Snapshots& snapshots,
                                 const train::EvalDone& done,
                                 train::Progress& progress) {
  const std::optional<Watch::Breach> breach = watch.breach();
  if (!breach.has_value()) {
    best.consider(done, progress);
    return std::nullopt;
  }
  if (!breach->rollback) {
    return breach->text;
  }
  return best.roll_back(snapshots, progress)
             ? fmt::format("{}: rolled back to step {}", breach->text, progress.step)
             : breach->text + ": there is no earlier evaluation to roll back to";
}

/// What a phase calls back for.
train::Parts parts_of(const Engine& engine,
                      Phase& phase,
                      objective::Objective& objective,
                      train::Snapshots& snapshots,
                      Redraw& redraw,
                      Best& best,
                      std::optional<train::RecordPrivacy>& privacy,
                      RunReporter& reporter) {
  Run& run = engine.run;
  return {.config = phase.config.train,
          .optim_config = phase.config.optim,
          .world = run.world,
          .model = *run.tuned.decoder,
          .objective = objective,
          .parameters = engine.parameters,
          .batches = phase.batches,
          .dropout = run.tuned.adapter.has_value() ? &run.tuned.adapter->dropout_keys() : nullptr,
          .noise = run.tuned.noise.get(),
          .snapshots = &snapshots,
          .begin_step =
              [&engine, &run, &redraw](int64_t step) {
                engine.session.watchdog().note_step(step);
                redraw.before_step(step, run.world);
                return comm::fault_at_step(engine.session.fault(), run.world.rank(), step) ==
                       comm::FaultAction::Nan;
              },
          .evaluate = {},
          .judge =
              [&engine, &best, &snapshots](const train::EvalDone& done, train::Progress& progress) {
                return judge(engine.watch, best, snapshots, done, progress);
              },
          .emit = [&reporter](const train::Event& event) { reporter.on(event); },
          .privacy = privacy.has_value() ? &*privacy : nullptr};
}

void say_where(const std::optional<train::Progress>& saved, int64_t total_steps) {
  if (!saved.has_value()) {
    core::log_info("there is no complete checkpoint yet: from the start");
  } else if (saved->step >= total_steps) {
    core::log_info(fmt::format(
        "the checkpoint is of step {} of {}: nothing is left to train", saved->step, total_steps));
  } else {
    core::log_info(fmt::format("on from the checkpoint of step {}", saved->step));
  }
}

/// A phase from placed parameters to its end; a later task starts the optimizer anew.
train::Outcome go(const Engine& engine, Phase& phase, bool resume) {
  Run& run = engine.run;
  const RunConfig& config = phase.config;
  RunObjective objective(config,
                         {.tuned = run.tuned,
                          .parameters = engine.parameters,
                          .groups = run.groups(),
                          .world = run.world,
                          .train = phase.batches.dataset(),
                          .held_out = phase.held_out.has_value() ? &*phase.held_out : nullptr});
  train::Snapshots snapshots(config.folder() / "checkpoints",
                             run.world,
                             engine.parameters,
                             phase.batches,
                             identity_of(run, phase),
                             store_options(config),
                             &objective.get());
  Best best(run, phase, engine.parameters, engine.watch);
  const optim::MemoryPlan plan =
      plan_run(config, run.tuned, run.mesh.shard().size(), run.world.size());
  Redraw redraw(config, run.tuned, engine.parameters, phase.number, steps_of_epoch(run, phase));
  set_rank_budget(config, run.tuned, phase.total_steps, engine.parameters);
  std::optional<train::Progress> saved;
  if (resume) {
    saved = snapshots.resume([&redraw](int64_t steps) { redraw.catch_up(steps); });
    best.remember();
    say_where(saved, phase.total_steps);
  }
  if (!saved.has_value() || saved->step < phase.total_steps) {
    snapshots.require_space();
  }
  const std::vector<std::string> kept = kept_files(run.config, phase.number);
  if (!saved.has_value() && config.optim.ewc > 0 && !kept.empty()) {
    measure_importance(run, kept, engine.parameters);
  }
  train::Progress progress = saved.value_or(train::Progress{});
  RunReporter reporter(config, run.world, progress.step, phase.total_steps);
  std::optional<train::RecordPrivacy> privacy = open_privacy(
      config, phase.batches.size(), phase.batches.digest(), phase.total_steps, run.world);
  reporter.header({.model = describe(run.tuned),
                   .objective = objective.text(),
                   .data = phase.batches.summary().text(),
                   .mesh = run.mesh.describe(),
                   .threads = engine.threads,
                   .memory = optim::to_text(plan),
                   .privacy = privacy.has_value() ? privacy->text() : ""});
  train::Parts parts =
      parts_of(engine, phase, objective.get(), snapshots, redraw, best, privacy, reporter);
  if (phase.held_out.has_value() || !engine.watch.empty()) {
    parts.evaluate = [&](int64_t step) { return evaluate(run, phase, parts, engine.watch, step); };
  }
  const train::Outcome outcome = train::run_loop(parts, progress, phase.total_steps);
  if (outcome == train::Outcome::Preempted) {
    reporter.farewell("saved; go on with --resume");
    return outcome;
  }
  write_result(config, run.tuned, engine.parameters, run.world);
  reporter.finish(plan, engine.parameters.bytes(), run.tuned.adapter.has_value());
  return outcome;
}

/// What every task's held-out data say now. Collective.
TaskTable::Row measure_tasks(const Run& run, const std::vector<data::EvalSet>& sets) {
  TaskTable::Row row;
  for (const data::EvalSet& set : sets) {
    const eval::LossReport report =
        eval::evaluate_loss(*run.tuned.decoder, set, run.config.data.micro_batch_rows, run.world);
    row.push_back({report.loss(), report.token_accuracy()});
  }
  return row;
}

/// Between two tasks: another half where tasks redraw, an optimizer that starts anew, a new start
/// that distance is measured from.
void begin_task(const Engine& engine, int64_t number) {
  const RunConfig& config = engine.run.config;
  if (engine.run.tuned.half.has_value() && config.tuning.half.redraw == "task") {
    const tuning::HalfDraws::Set drawn = engine.run.tuned.half->draw(number);
    engine.parameters.retarget(
        [&drawn](const tensor::Parameter& parameter) { return drawn.contains(&parameter); },
        optim::StateOnRetarget::Drop);
  }
  engine.parameters.reset_state();
  if (config.optim.l2 > 0 || config.optim.ewc > 0) {
    engine.parameters.anchor_here();
  }
}

/// The weights that a finished task has left.
void load_finished(const Engine& engine, const RunConfig& config, int64_t number) {
  Phase phase(engine.run, config, number);
  train::Snapshots(config.folder() / "checkpoints",
                   engine.run.world,
                   engine.parameters,
                   phase.batches,
                   identity_of(engine.run, phase),
                   store_options(config))
      .resume();
}

/// config.tasks, each from the last one's weights.
train::Outcome run_tasks(const Engine& engine, bool resume) {
  const Run& run = engine.run;
  const RunConfig& config = run.config;
  std::vector<std::string> names;
  std::vector<data::EvalSet> sets;
  for (size_t task = 0; task < config.tasks.size(); ++task) {
    names.push_back(config.tasks[task].name);
    const RunConfig own = config_of_task(config, task);
    sets.push_back(open_other(own, own.data.eval, run.bundle, run.max_positions()));
  }
  TaskTable table(config.folder() / "tasks.json", names);
  if (resume) {
    table.read(run.world);
  }
  if (!table.started()) {
    table.add(measure_tasks(run, sets), run.world);
  }
  for (size_t task = 0; task < config.tasks.size(); ++task) {
    const auto number = static_cast<int64_t>(task);
    const RunConfig own = config_of_task(config, task);
    if (task > 0) {
      begin_task(engine, number);
    }
    if (task < table.finished()) {
      if (task + 1 == table.finished()) {
        load_finished(engine, own, number);
      }
      continue;
    }
    Phase phase(run, own, number);
    make_folder(own, run.world);
    core::log_info(fmt::format("task {} of {}: {}", task + 1, names.size(), names[task]));
    if (go(engine, phase, resume) == train::Outcome::Preempted) {
      return train::Outcome::Preempted;
    }
    table.add(measure_tasks(run, sets), run.world);
    core::log_info(table.text());
  }
  return train::Outcome::Finished;
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
  Run run(config, ranks);
  Watch watch(run);
  std::optional<Phase> only;  // what is wrong with config or data shows before anything is written
  if (config.tasks.empty()) {
    only.emplace(run, config, 0);
    on_first_rank(world, [&] {
      check_data(config.data, only->batches.dataset(), only->held_out ? &*only->held_out : nullptr);
    });
  } else {
    for (size_t task = 0; task < config.tasks.size(); ++task) {
      const Phase phase(run, config_of_task(config, task), static_cast<int64_t>(task));
    }
  }
  make_folder(config, world);
  session->set_report_folder(config.folder());
  session->watchdog().start(config.folder(), config.train.watchdog_s);
  train::catch_stop_signals();

  const auto parameters = place(run);
  watch.measure_start(run);
  const Engine engine{run, *parameters, watch, *session, threads};
  const train::Outcome outcome = only ? go(engine, *only, resume) : run_tasks(engine, resume);
  return outcome == train::Outcome::Preempted ? core::exit_code(ErrorKind::Preempted) : 0;
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
