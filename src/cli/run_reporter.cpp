// SPDX-License-Identifier: Apache-2.0
#include "run_reporter.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/format.h"
#include "kamerton/core/json.h"
#include "kamerton/core/log.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/telemetry/console_sink.h"
#include "kamerton/telemetry/jsonl_sink.h"
#include "kamerton/telemetry/memory.h"
#include "kamerton/telemetry/tensorboard_sink.h"
#include "kamerton/tensor/allocator.h"

namespace kamerton::cli {
namespace {

/// A path as a shell takes it, for commands that are copied.
std::string quoted(const std::string& path) {
  const bool plain = std::all_of(path.begin(), path.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c >= 0x80 ||
           std::string_view("/._-+=:@%,").find(static_cast<char>(c)) != std::string_view::npos;
  });
  if (plain) {
    return path;
  }
  std::string text = "'";
  for (const char c : path) {
    text += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return text + "'";
}

/// "name   first line\n       second line"
std::string block(const std::string& name, const std::string& text) {
  std::string out = fmt::format("{:<9}", name);
  for (const char c : text.substr(0, text.find_last_not_of('\n') + 1)) {
    out += c;
    if (c == '\n') {
      out += std::string(9, ' ');
    }
  }
  return out + "\n";
}

}  // namespace

RunReporter::RunReporter(const RunConfig& config,
                         const comm::Group& world,
                         int64_t first_step,
                         int64_t total_steps)
    : config_(config),
      world_(world),
      total_steps_(total_steps),
      start_s_(clock_.now_s()),
      throughput_(clock_) {
  if (world.rank() != 0) {
    return;
  }
  telemetry::ConsoleOptions console;
  console.total_steps = total_steps;
  console.first_step = first_step;
  console.every_steps = config.train.log_every;
  sinks_.push_back(std::make_unique<telemetry::ConsoleSink>(stderr, clock_, console));
  sinks_.push_back(std::make_unique<telemetry::JsonlSink>(
      (config.folder() / "metrics.jsonl").string(), first_step + 1));
  sinks_.push_back(std::make_unique<telemetry::JsonlSink>(
      (config.folder() / "eval.jsonl").string(), first_step + 1, "eval"));
  if (config.telemetry.tensorboard) {
    sinks_.push_back(std::make_unique<telemetry::TensorboardSink>(
        (config.folder() / "tensorboard").string(), "rank0"));
  }
}

void RunReporter::header(const HeaderTexts& texts) const {
  if (world_.rank() != 0) {
    return;
  }
  const std::string text = block("run", config_.folder().string()) + block("model", texts.model) +
                           block("minimise", texts.objective) + block("data", texts.data) +
                           block("mesh", texts.mesh) + block("threads", texts.threads) +
                           block("memory", texts.memory) +
                           (texts.privacy.empty() ? "" : block("privacy", texts.privacy)) +
                           block("steps",
                                 fmt::format("{} of {} rows ({} a micro-batch), ZeRO stage {}",
                                             total_steps_,
                                             config_.data.batch_rows,
                                             config_.data.micro_batch_rows,
                                             config_.optim.zero_stage));
  std::fputs(text.c_str(), stderr);
}

void RunReporter::on(const train::Event& event) {
  if (world_.rank() == 0) {
    std::visit([this](const auto& one) { record(one); }, event);
  }
}

void RunReporter::write(const telemetry::Record& record) {
  for (const auto& sink : sinks_) {
    sink->write(record);
  }
}

void RunReporter::record(const train::StepDone& event) {
  throughput_.add(event.tokens);
  total_tokens_ += event.tokens;
  skipped_ += event.skipped ? 1 : 0;
  telemetry::Record line{.kind = "train", .step = event.step, .values = {}};
  line.add("loss", event.loss)
      .add("grad_norm", event.grad_norm)
      .add("lr", event.lr)
      .add("tokens", event.tokens)
      .add("tokens_per_s", throughput_.tokens_per_s())
      .add("peak_rss_bytes", telemetry::peak_rss_bytes())
      .add("targets", event.targets)
      .add("skipped", static_cast<int64_t>(event.skipped ? 1 : 0));
  for (const auto& [name, value] : event.metrics) {
    line.add(name, value);
  }
  write(line);
  if (event.skipped) {
    core::log_warning(fmt::format(
        "step {} was skipped: loss {} and gradient norm {} are not both finite ({} skipped so far)",
        event.step,
        event.loss,
        event.grad_norm,
        skipped_));
  }
}

void RunReporter::record(const train::EvalDone& event) {
  telemetry::Record line{.kind = "eval", .step = event.step, .values = {}};
  if (!std::isnan(event.loss)) {  // without held-out data there is only what is watched
    line.add("loss", event.loss);
  }
  for (const auto& [name, value] : event.metrics) {
    line.add(name, value);
  }
  write(line);
  throughput_.skip_pause();
}

void RunReporter::record(const train::Saved& event) {
  telemetry::Record line{.kind = "saved", .step = event.step, .values = {}};
  line.add("folder", event.folder).add("bytes", event.bytes).add("seconds", event.seconds);
  write(line);
  throughput_.skip_pause();
}

void RunReporter::record(const train::SaveFailed& event) {
  core::log_warning(fmt::format(
      "step {} could not be saved, the run goes on (checkpoint.on_save_error: continue): {}",
      event.step,
      event.message));
  throughput_.skip_pause();
}

void RunReporter::record(const train::Stopped& event) {
  farewell(fmt::format("stopped after step {}: {}", event.step, event.reason));
}

void RunReporter::farewell(const std::string& word) {
  for (const auto& sink : sinks_) {
    sink->flush();
  }
  if (world_.rank() == 0) {
    core::log_info(word);
  }
}

void RunReporter::finish(const optim::MemoryPlan& plan,
                         const optim::ShardedBytes& engine,
                         bool has_adapter) {
  const int64_t peak = world_.max(telemetry::peak_rss_bytes());
  const int64_t held = world_.max(tensor::allocator_stats().peak_live_bytes);
  const double seconds = clock_.now_s() - start_s_;
  const auto readable = [](int64_t bytes) {
    return core::format_bytes(static_cast<uint64_t>(bytes));
  };
  farewell(
      fmt::format("done in {}: {} tokens, {} step(s) skipped; peak memory of a rank {} (tensors "
                  "{}), planned {}",
                  core::format_duration(seconds),
                  total_tokens_,
                  skipped_,
                  readable(peak),
                  readable(held),
                  readable(plan.total())));
  if (world_.rank() != 0) {
    return;
  }
  const core::Json summary = {{"steps", total_steps_},
                              {"seconds", seconds},
                              {"tokens", total_tokens_},
                              {"skipped_steps", skipped_},
                              {"ranks", world_.size()},
                              {"peak_rss_bytes", peak},
                              {"peak_tensor_bytes", held},
                              {"planned_bytes", plan.total()},
                              {"planned",
                               {{"parameters", plan.parameters},
                                {"gradients", plan.gradients},
                                {"optimizer_state", plan.optimizer_state},
                                {"other_models", plan.other_models},
                                {"generation", plan.generation},
                                {"reduced_per_step", plan.reduced_per_step}}},
                              {"engine_bytes",
                               {{"parameters", engine.parameters},
                                {"gradients", engine.gradients},
                                {"optimizer_state", engine.optimizer_state},
                                {"reduced_per_step", engine.reduced_per_step},
                                {"transient_peak", engine.transient_peak},
                                {"largest_unit_parameters", engine.largest_unit_parameters},
                                {"largest_unit_gradients", engine.largest_unit_gradients}}}};
  storage::write_file_atomic(
      storage::posix_filesystem(), config_.folder() / "summary.json", summary.dump(2) + "\n");
  const std::string folder = quoted(config_.folder().string());
  if (objective::scores(config_.objective)) {
    core::log_info(fmt::format(
        "next: objective.rewards: [{{kind: model, model: {}/model}}] judges with it", folder));
    return;
  }
  core::log_info(has_adapter ? fmt::format("next: kamerton chat --model {} --adapter {}/adapter",
                                           quoted(config_.model.path),
                                           folder)
                             : fmt::format("next: kamerton export --checkpoint {} --to models/{}",
                                           folder,
                                           quoted(config_.name)));
}

}  // namespace kamerton::cli
