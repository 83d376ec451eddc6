// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/record_privacy.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/optim/schedule.h"
#include "kamerton/privacy/budget_ledger.h"
#include "kamerton/privacy/keys.h"
#include "kamerton/privacy/noise_key.h"
#include "kamerton/privacy/normal_stream.h"
#include "kamerton/privacy/random_source.h"
#include "kamerton/privacy/wire.h"
#include "kamerton/storage/filesystem.h"

#include "micro_batch.h"

namespace kamerton::train {
namespace {

namespace fs = std::filesystem;

/// Does `work` on rank 0 and gives all ranks its text; every rank throws what it threw.
std::string from_first_rank(const comm::Group& world, const std::function<std::string()>& work) {
  std::string text;
  int64_t kind = -1;
  if (world.rank() == 0) {
    try {
      text = work();
    } catch (const core::Error& error) {
      text = error.what();
      kind = static_cast<int64_t>(error.kind());
    }
  }
  text = world.broadcast(text, 0);
  kind = world.max(kind);
  if (kind >= 0) {
    throw core::Error(static_cast<core::ErrorKind>(kind), text);
  }
  return text;
}

int64_t passes_of(const PrivateRun& run, int64_t steps) {
  return steps <= 0 ? 0 : (steps - 1) * run.batch_rows / run.records + 1;
}

/// Two tokens without a target: a turn of a rank that has no record left.
data::Batch empty_example() {
  data::Batch batch;
  batch.tokens = {0, 0};
  batch.targets = {data::kNoTarget, data::kNoTarget};
  batch.positions = {0, 1};
  batch.document_offsets = {0, 2};
  batch.sample_ids = {0};
  batch.rows = 1;
  return batch;
}

}  // namespace

std::string RecordPrivacy::ledger_path() const {
  return (fs::path(config_.folder) / (config_.site + "." + config_.data_set + ".jsonl")).string();
}

namespace {

/// What rank 0 finds out and all ranks need.
struct Found {
  double noise = 0;
  privacy::Secret key = {};
  std::string text = {};

  std::string encode() const {
    privacy::WireWriter writer;
    writer.f64(noise);
    writer.raw(key.bytes());
    writer.text(text);
    return writer.take();
  }
  static Found decode(const std::string& bytes) {
    privacy::WireReader reader(bytes, "what rank 0 has found");
    Found found;
    found.noise = reader.f64();
    reader.raw({found.key.data(), privacy::Secret::kBytes});
    found.text = reader.text(4096);
    return found;
  }
};

/// A run that is refused; with rounds, the ledger stops it when it comes to that.
std::string beyond_budget(const privacy::RecordPrivacyConfig& config,
                          const PrivateRun& run,
                          const std::string& cost) {
  if (run.rounds > 0) {
    return "; the budget will end before the run does";
  }
  throw core::Error(
      core::ErrorKind::Permission,
      {.where = "train.record_privacy",
       .what = fmt::format("this run would exceed the privacy budget of '{}'", config.data_set),
       .got = cost,
       .allowed = fmt::format("{:.4f}", *config.epsilon),
       .hint = "a larger privacy.noise (or none: it is then found), fewer epochs"});
}

/// The noise of this run after what other runs have spent, and what it will have cost.
Found plan_noise(const privacy::RecordPrivacyConfig& config,
                 const privacy::BudgetLedger& ledger,
                 const PrivateRun& run,
                 privacy::NoisyRelease release) {
  std::vector<privacy::NoisyRelease> before;
  privacy::PrivacyAccountant accountant;
  Found found{.noise = config.noise.value_or(0)};
  for (const privacy::LedgerEntry& entry : ledger.entries()) {
    if (entry.run == run.name) {  // a run that goes on: its passes are not new, its noise stays
      found.noise = entry.release.noise;
    } else {
      before.push_back(entry.release);
      accountant.add(entry.release);
    }
  }
  const double spent = accountant.epsilon(config.delta);
  if (found.noise == 0) {
    found.noise = privacy::calibrate_noise(
        *config.epsilon, config.delta, release.sampling, release.count, before);
  }
  release.noise = found.noise;
  accountant.add(release);
  const double total = accountant.epsilon(config.delta);
  const std::string warning =
      total > *config.epsilon
          ? beyond_budget(config,
                          run,
                          fmt::format("epsilon {:.4f} at delta {}, of which {:.4f} is spent",
                                      total,
                                      config.delta,
                                      spent))
          : "";
  found.text = fmt::format(
      "records of '{}' are hidden: noise {:.4g} times clip {:g}, {} {}, epsilon {:.3f} of {:g} at "
      "delta "
      "{:g} ({:.3f} before this run)",
      config.data_set,
      found.noise,
      config.clip,
      release.count,
      release.sampling < 1 ? fmt::format("draws of {:.3g} % of them", 100 * release.sampling)
                           : "passes over them",
      total,
      *config.epsilon,
      config.delta,
      spent);
  found.text += warning;
  return found;
}

/// Gradient noise: a function of key, step, parameter and element.
optim::ShardedParameters::AddNoise noise_adder(const privacy::Secret& key,
                                               int64_t step,
                                               double scale) {
  return [&key, step, scale](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    privacy::NormalStream(key, "record noise", static_cast<uint64_t>(step), parameter.name)
        .add(static_cast<uint64_t>(offset),
             scale,
             {out.data_ptr<float>(), static_cast<size_t>(out.numel())});
  };
}

}  // namespace

RecordPrivacy::RecordPrivacy(const privacy::RecordPrivacyConfig& config,
                             const PrivateRun& run,
                             const comm::Group& world)
    : config_(config), run_(run) {
  if (run.batch_rows > run.records) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "train.record_privacy",
                       .what = "a step takes more records than there are: one would count twice",
                       .got = fmt::format("{} of {}", run.batch_rows, run.records),
                       .allowed = "data.batch_rows up to the number of records"});
  }
  run_.name += ":" + run_.fingerprint;
  const std::string bytes = from_first_rank(world, [&] {
    storage::posix_filesystem().make_directories(config.folder);
    const auto ledger = privacy::BudgetLedger::open(
        ledger_path(), config.site, config.data_set, {*config.epsilon, config.delta});
    Found found = plan_noise(config, ledger, run_, whole_run(0));
    // One run's noise says nothing about another's.
    found.key = privacy::derive(privacy::noise_key(config.folder), "run", run_.name);
    return found.encode();
  });
  const Found found = Found::decode(bytes);
  noise_ = found.noise;
  run_key_ = found.key;
  key_ = found.key;
  text_ = found.text;
}

double RecordPrivacy::begin_round(const PrivateRound& round, const comm::Group& world) {
  privacy::NoisyRelease release = whole_run(noise_);
  release.count = static_cast<uint64_t>(run_.total_steps / run_.rounds);
  const std::string spent = from_first_rank(world, [&] {
    auto ledger = privacy::BudgetLedger::open(
        ledger_path(), config_.site, config_.data_set, {*config_.epsilon, config_.delta});
    privacy::WireWriter writer;
    writer.f64(ledger.reserve(run_.name, round.what, release).epsilon_after);
    return writer.take();
  });
  key_ = privacy::derive(run_key_, "round", round.what + "|" + round.binding);
  privacy::WireReader reader(spent, "what rank 0 has spent");
  return reader.f64();
}

privacy::NoisyRelease RecordPrivacy::whole_run(double noise) const {
  if (draws()) {
    return {.noise = noise,
            .sampling = static_cast<double>(run_.batch_rows) / static_cast<double>(run_.records),
            .count = static_cast<uint64_t>(run_.total_steps)};
  }
  return {.noise = noise, .count = static_cast<uint64_t>(passes_of(run_, run_.total_steps))};
}

RecordPrivacy::Stretch RecordPrivacy::stretch_of(int64_t step) const {
  Stretch stretch{.what = {}, .release = whole_run(noise_)};
  if (!draws()) {
    stretch.number = (step - 1) * run_.batch_rows / run_.records;
    stretch.what = "pass " + std::to_string(stretch.number + 1);
    stretch.release.count = 1;
    return stretch;
  }
  const int64_t steps = (run_.records + run_.batch_rows - 1) / run_.batch_rows;
  stretch.number = (step - 1) / steps;
  const int64_t first = stretch.number * steps + 1;
  const int64_t last = std::min(first + steps - 1, run_.total_steps);
  stretch.what = fmt::format("steps {}-{}", first, last);
  stretch.release.count = static_cast<uint64_t>(last - first + 1);
  return stretch;
}

/// On the disk before the stretch's first step. (Rounds are charged as they begin.)
void RecordPrivacy::spend(const comm::Group& world, const Stretch& stretch) {
  if (run_.rounds > 0 || stretch.number < spent_) {
    return;
  }
  from_first_rank(world, [&] {
    auto ledger = privacy::BudgetLedger::open(
        ledger_path(), config_.site, config_.data_set, {*config_.epsilon, config_.delta});
    ledger.reserve(run_.name, stretch.what, stretch.release);
    return std::string();
  });
  spent_ = stretch.number + 1;
}

/// One coin a record, the same on all ranks and each time the step runs.
std::vector<int64_t> RecordPrivacy::drawn_records(int64_t step) const {
  privacy::KeyedRandom coins(privacy::derive(key_, "coins", ""), static_cast<uint64_t>(step));
  const double chance = whole_run(noise_).sampling;
  std::vector<int64_t> drawn;
  for (int64_t record = 0; record < run_.records; ++record) {
    if (static_cast<double>(coins.bits64() >> 11) * 0x1p-53 < chance) {
      drawn.push_back(record);
    }
  }
  return drawn;
}

std::vector<RecordPrivacy::Turn> RecordPrivacy::turns_of(Parts& parts, int64_t step) const {
  std::vector<Turn> turns;
  if (!draws()) {
    const int64_t pass = (step - 1) * run_.batch_rows / run_.records;
    for (const data::Batch& micro_batch : parts.batches.next()) {
      for (data::Batch& example : split_examples(micro_batch)) {
        // Another pass's record: it may be in this step already, or its turn is paid for later.
        const bool counts =
            example.target_count > 0 && example.sample_ids[0] / run_.records == pass;
        turns.push_back({std::move(example), counts});
      }
    }
    return turns;
  }
  const std::vector<int64_t> drawn = drawn_records(step);
  const auto ranks = static_cast<size_t>(parts.world.size());
  const size_t rounds = std::max<size_t>((drawn.size() + ranks - 1) / ranks, 1);
  for (size_t round = 0; round < rounds; ++round) {
    const size_t at = round * ranks + static_cast<size_t>(parts.world.rank());
    data::Batch batch;
    if (at < drawn.size()) {
      const data::Example example = parts.batches.dataset().get(drawn[at]);
      if (!example.tokens.empty()) {
        batch.append(example, (step - 1) * run_.records + drawn[at]);
        batch.rows = 1;
      }
    }
    const bool counts = batch.target_count > 0;
    turns.push_back({counts ? std::move(batch) : empty_example(), counts});
  }
  return turns;
}

StepReport RecordPrivacy::run_step(Parts& parts,
                                   int64_t step,
                                   int64_t update_number,
                                   int64_t total_steps) {
  const bool poisoned = parts.begin_step && parts.begin_step(step);
  spend(parts.world, stretch_of(step));
  StepReport report{.metrics = {}};
  double loss = 0;
  int64_t records = 0;
  for (const Turn& turn : turns_of(parts, step)) {
    const data::Batch& example = turn.example;
    const double share = poisoned      ? std::numeric_limits<double>::quiet_NaN()
                         : turn.counts ? 1.0 / static_cast<double>(example.target_count)
                                       : 0.0;
    parts.parameters.begin_example();
    const double own =
        forward_backward(parts, example, {.target = share, .pair = share, .likelihood = share});
    parts.parameters.add_clipped_example(config_.clip);
    loss += turn.counts ? own : 0.0;
    records += turn.counts ? 1 : 0;
    report.targets += turn.counts ? example.target_count : 0;
    report.tokens += turn.counts ? static_cast<int64_t>(example.tokens.size()) : 0;
  }
  report.targets = parts.world.sum(report.targets);
  report.tokens = parts.world.sum(report.tokens);
  report.loss =
      parts.world.sum(loss) / static_cast<double>(std::max<int64_t>(parts.world.sum(records), 1));
  report.metrics = reduce_metrics(parts);
  const optim::GradientReport gradient =
      parts.parameters.finish_clipped(noise_adder(key_, step, noise_ * config_.clip),
                                      1.0 / static_cast<double>(run_.batch_rows),
                                      parts.optim_config.max_grad_norm);
  report.grad_norm = gradient.norm;
  report.lr = optim::learning_rate(parts.optim_config, step - 1, total_steps);
  report.skipped = !gradient.finite;
  if (gradient.finite) {
    parts.parameters.update(update_number, report.lr, step);
    report.updates = 1;
  }
  append_method_metrics(parts, gradient, report.metrics);
  return report;
}

std::vector<data::Batch> split_examples(const data::Batch& batch) {
  std::vector<data::Batch> examples;
  for (size_t i = 0; i + 1 < batch.document_offsets.size(); ++i) {
    const auto begin = batch.document_offsets[i];
    const auto end = batch.document_offsets[i + 1];
    const auto cut = [&](const std::vector<int64_t>& values) {
      return std::vector<int64_t>(values.begin() + begin, values.begin() + end);
    };
    data::Batch example;
    example.tokens = cut(batch.tokens);
    example.targets = cut(batch.targets);
    example.positions = cut(batch.positions);
    example.document_offsets = {0, end - begin};
    example.sample_ids = {batch.sample_ids[i]};
    example.target_count = std::count_if(example.targets.begin(),
                                         example.targets.end(),
                                         [](int64_t target) { return target != data::kNoTarget; });
    example.rows = 1;
    examples.push_back(std::move(example));
  }
  return examples;
}

}  // namespace kamerton::train
