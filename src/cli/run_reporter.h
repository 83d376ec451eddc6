// SPDX-License-Identifier: Apache-2.0
// Tells people and files how a run goes: header, progress line, metrics.jsonl, TensorBoard, the
// memory's final reckoning.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/core/clock.h"
#include "kamerton/optim/memory_plan.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/telemetry/sink.h"
#include "kamerton/telemetry/throughput.h"
#include "kamerton/train/event.h"

#include "run_config.h"

namespace kamerton::cli {

struct HeaderTexts {
  std::string model;
  std::string objective;
  std::string data;
  std::string mesh;
  std::string threads;
  std::string memory;
  std::string privacy;  ///< empty: nothing is hidden
};

class RunReporter {
 public:
  /// `first_step`: steps done before (resume). Files are opened on rank 0. Throws
  /// ErrorKind::Output.
  RunReporter(const RunConfig& config,
              const comm::Group& world,
              int64_t first_step,
              int64_t total_steps);

  void header(const HeaderTexts& texts) const;
  /// Every rank calls it; rank 0 records.
  void on(const train::Event& event);
  /// Collective: the largest measured peak beside the prediction (also as summary.json), and what
  /// to type next.
  void finish(const optim::MemoryPlan& plan, const optim::ShardedBytes& engine, bool has_adapter);
  /// Ends the progress line and says a last word.
  void farewell(const std::string& word);

 private:
  void record(const train::StepDone& event);
  void record(const train::EvalDone& event);
  void record(const train::Saved& event);
  void record(const train::SaveFailed& event);
  void record(const train::Stopped& event);
  void write(const telemetry::Record& record);

  const RunConfig& config_;
  const comm::Group& world_;
  int64_t total_steps_;
  int64_t skipped_ = 0;
  int64_t total_tokens_ = 0;
  core::SteadyClock clock_;
  double start_s_;
  telemetry::Throughput throughput_;
  std::vector<std::unique_ptr<telemetry::Sink>> sinks_;
};

}  // namespace kamerton::cli
