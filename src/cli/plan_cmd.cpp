// SPDX-License-Identifier: Apache-2.0
// kamerton plan: what a run will need, without weights and without ranks.
#include <cstdio>

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"

#include "assemble.h"
#include "command.h"
#include "run_plan.h"

namespace kamerton::cli {
namespace {

int run_plan(const po::variables_map& arguments, comm::Session*) {
  static const Command self = plan_command();
  RunConfig config = load_run_config(required(arguments, "config", self),
                                     value_or<std::vector<std::string>>(arguments, "set", {}));
  const int64_t ranks = arguments["ranks"].as<int64_t>();
  if (ranks < 1) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.plan",
                       .what = "--ranks is out of range",
                       .got = std::to_string(ranks),
                       .allowed = "1 or more"});
  }
  const Tuned tuned = build_tuned(config);
  const ParameterCounts counts = count_parameters(*tuned.decoder);
  fmt::print("model       {} ({} parameters, {} trained)\n",
             tuned.decoder->config().architecture,
             core::format_count(static_cast<double>(counts.all)),
             core::format_count(static_cast<double>(counts.trainable)));
  fmt::print("batch       {} rows of at most {} tokens a step, {} row(s) a micro-batch\n",
             config.data.batch_rows,
             data::resolved_sequence_length(config.data, tuned.decoder->config().context()),
             config.data.micro_batch_rows);
  fmt::print("\nMemory of a rank, MiB, on {} rank(s); * is the configured stage\n", ranks);
  fmt::print("{:<8}{:>12}{:>12}{:>12}{:>10}{:>12}{:>12}{:>10}{:>12}{:>10}{:>12}\n",
             "stage",
             "parameters",
             "gradients",
             "optimizer",
             "others",
             "transient",
             "activations",
             "head",
             "generating",
             "base",
             "total");
  const int64_t configured = config.optim.zero_stage;
  for (int64_t stage = 0; stage <= 3; ++stage) {
    config.optim.zero_stage = stage;
    const optim::MemoryPlan plan =
        plan_run(config, tuned, static_cast<int>(ranks), static_cast<int>(ranks));
    const auto mib = [](int64_t bytes) {
      return fmt::format("{:.0f}", static_cast<double>(bytes) / 1048576.0);
    };
    fmt::print("{:<8}{:>12}{:>12}{:>12}{:>10}{:>12}{:>12}{:>10}{:>12}{:>10}{:>12}\n",
               fmt::format("{}{}", stage, stage == configured ? " *" : ""),
               mib(plan.parameters),
               mib(plan.gradients),
               mib(plan.optimizer_state),
               mib(plan.other_models),
               mib(plan.transient),
               mib(plan.activations),
               mib(plan.head),
               mib(plan.generation),
               mib(plan.base),
               mib(plan.total()));
  }
  return 0;
}

}  // namespace

Command plan_command() {
  return {.name = "plan",
          .summary = "memory a run will need, by part and ZeRO stage",
          .usage = "kamerton plan RUN.yaml [--ranks N] [--set KEY=VALUE]...",
          .description =
              "Reads the model's config.json only: no weights, no ranks.\n\nExample:\n  kamerton "
              "plan configs/quickstart/run.yaml --ranks 2",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()("config", po::value<std::string>(), "the run's YAML file")(
                    "ranks,n", po::value<int64_t>()->default_value(1), "ranks of the run")(
                    "set",
                    po::value<std::vector<std::string>>(),
                    "KEY=VALUE over the file's; may be repeated");
                positional.add("config", 1);
              },
          .run = run_plan};
}

}  // namespace kamerton::cli
