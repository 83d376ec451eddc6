// SPDX-License-Identifier: Apache-2.0
// kamerton data prepare: tokens once, by all ranks, for every run that comes.
#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/data/prepare.h"
#include "kamerton/telemetry/memory.h"

#include "data_open.h"

namespace kamerton::cli {
namespace {

/// A thread a processor of the node, shared out among its ranks.
int threads_of_rank(const po::variables_map& arguments, const comm::Topology& topology) {
  return arguments.count("threads") != 0
             ? threads_of(arguments)
             : std::max(1, threads_of(arguments) / std::max(topology.local_size, 1));
}

std::string result_text(const data::StorePreparation& work,
                        const data::PrepareReport& report,
                        int64_t made,
                        int64_t peak_bytes,
                        double seconds) {
  return fmt::format(
      "{}\n{} records, {} tokens, {} trained{}; {} parts ({} made now), {}\n"
      "{} of text in {}: {:.1f} MB/s; peak memory of a rank {}\n",
      report.folder.string(),
      report.records,
      report.tokens,
      report.targets,
      report.bad > 0 ? fmt::format(", {} bad records left out", report.bad) : "",
      report.parts,
      made,
      core::format_bytes(static_cast<uint64_t>(report.stored_bytes)),
      core::format_bytes(static_cast<uint64_t>(work.raw_bytes())),
      core::format_duration(seconds),
      static_cast<double>(work.raw_bytes()) / 1e6 / seconds,
      core::format_bytes(static_cast<uint64_t>(peak_bytes)));
}

/// One set of files, by all ranks.
void prepare_set(data::StorePreparation work, int threads, const comm::Group& world) {
  const auto start = std::chrono::steady_clock::now();
  // What the first rank throws in between ends the job: the others wait in the collective.
  const bool whole = world.any(world.rank() == 0 && work.begin(threads));
  if (whole) {
    if (world.rank() == 0) {
      fmt::print("{}\nthe store is there and whole\n", work.folder().string());
    }
    return;
  }
  const int64_t made = world.sum(work.make_parts(world.rank(), world.size(), threads));
  const int64_t peak = world.max(telemetry::peak_rss_bytes());
  if (world.rank() == 0) {
    const data::PrepareReport report = work.publish();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    fmt::print("{}", result_text(work, report, made, peak, elapsed.count()));
  }
  world.barrier();
}

int run_prepare(const po::variables_map& arguments, comm::Session* session) {
  static const Command self = data_prepare_command();
  OpenedModel opened = open_model(arguments, self);
  data::DataConfig& config = opened.config.data;
  config.store_dir = value_or<std::string>(arguments, "to", config.store_dir);
  const int threads = threads_of_rank(arguments, session->topology());
  prepare_set(data::StorePreparation(config, false, *opened.bundle, opened.max_positions),
              threads,
              session->world());
  if (data::has_eval(config)) {
    prepare_set(data::StorePreparation(config, true, *opened.bundle, opened.max_positions),
                threads,
                session->world());
  }
  return 0;
}

}  // namespace

Command data_prepare_command() {
  return {
      .name = "data prepare",
      .summary = "tokenizes data once, for every run that comes",
      .usage = "kamerton data prepare RUN.yaml | --model DIR --data FILE [--to DIR]",
      .description =
          "Writes data.train and data.eval as tokens into a folder below data.store_dir that is "
          "named by digests of the files, the tokenizer, the\nchat template and the settings: a "
          "run finds it by the same names, and what has changed is made anew. Killed work goes "
          "on where it\nstopped. The files are HDF5 (layout: src/data/STORE.md).\n\nExamples:\n"
          "  kamerton data prepare configs/quickstart/run.yaml\n"
          "  mpirun -np 2 kamerton data prepare configs/quickstart/run.yaml --threads 4",
      .needs_ranks = true,
      .add_options =
          [](po::options_description& options, po::positional_options_description& positional) {
            add_data_options(options, positional);
            options.add_options()(
                "to", po::value<std::string>(), "folder of the stores, instead of data.store_dir")(
                "threads",
                po::value<int64_t>(),
                "of a rank; default: the node's processors shared out among its ranks");
          },
      .run = run_prepare};
}

}  // namespace kamerton::cli
