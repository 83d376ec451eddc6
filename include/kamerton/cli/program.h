// SPDX-License-Identifier: Apache-2.0
// The command line: which command, with which arguments.
#pragma once

#include <exception>
#include <functional>
#include <memory>

#include "kamerton/comm/gpu_plugin.h"
#include "kamerton/comm/session.h"

namespace kamerton::cli {

/// A command with its arguments bound, ready to run.
class Program {
 public:
  Program(bool needs_ranks, std::function<int(comm::Session*)> body)
      : needs_ranks_(needs_ranks), body_(std::move(body)) {}

  /// true: the command computes on all ranks of an MPI job.
  bool needs_ranks() const { return needs_ranks_; }
  /// Every rank calls it. Returns the exit code; throws core::Error for what goes wrong.
  int run(comm::Session& session) const { return body_(&session); }
  /// For commands without ranks: errors are reported here. Returns the exit code.
  int run_alone() const noexcept;

 private:
  bool needs_ranks_;
  std::function<int(comm::Session*)> body_;
};

/// Never throws: wrong arguments become a Program that explains and returns 64; --help one that
/// prints and returns 0.
Program parse(int argc, char** argv) noexcept;

/// What must happen before the first tensor: the caching allocator, and the GPU plug-in where there
/// is a device (ATen caches its CUDA hooks at the first query). Null without a device, and with a
/// warning when the plug-in does not load: a model that asks for cuda then says so. Keep the
/// result for the life of the process.
std::shared_ptr<const comm::Gpu> prepare_process();

/// Prints the error on stderr; returns its exit code.
int report(const std::exception& error) noexcept;

}  // namespace kamerton::cli
