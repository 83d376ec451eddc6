// SPDX-License-Identifier: Apache-2.0
// kamerton data show, stats, verify: looking at what a run would train on.
#include <numeric>
#include <thread>

#include <fmt/format.h>
#include <unistd.h>

#include "kamerton/data/inspect.h"
#include "kamerton/model/architecture.h"
#include "kamerton/text/bundle.h"

#include "command.h"
#include "run_config.h"

namespace kamerton::cli {
namespace {

/// The run's file, or --model and --data alone.
RunConfig config_of(const po::variables_map& arguments, const Command& command) {
  const auto overrides = value_or<std::vector<std::string>>(arguments, "set", {});
  RunConfig config;
  if (arguments.count("config") != 0) {
    config = load_run_config(arguments["config"].as<std::string>(), overrides);
  } else {
    required(arguments, "model", command);
    config::Document document = config::Document::from_text("{}", "--set");
    for (const std::string& assignment : overrides) {
      document.set(assignment);
    }
    document.fill(config);
  }
  config.model.path = value_or<std::string>(arguments, "model", config.model.path);
  config.data.train = value_or<std::vector<std::string>>(arguments, "data", config.data.train);
  return config;
}

struct Opened {
  RunConfig config;
  std::unique_ptr<text::TokenizerBundle> bundle;
  std::unique_ptr<data::Dataset> set;
};

Opened open(const po::variables_map& arguments, const Command& command) {
  Opened opened{.config = config_of(arguments, command), .bundle = nullptr, .set = nullptr};
  opened.bundle =
      std::make_unique<text::TokenizerBundle>(text::load_bundle(opened.config.model.path));
  const int64_t limit = model::read_config(opened.config.model.path).max_positions;
  opened.set =
      std::make_unique<data::Dataset>(data::open_train(opened.config.data, *opened.bundle, limit));
  return opened;
}

int run_show(const po::variables_map& arguments, comm::Session*) {
  static const Command self = data_show_command();
  const Opened opened = open(arguments, self);
  const int64_t first = arguments["first"].as<int64_t>() - 1;
  std::vector<int64_t> indices(static_cast<size_t>(std::clamp<int64_t>(
      arguments["count"].as<int64_t>(), 0, std::max<int64_t>(opened.set->size() - first, 0))));
  std::iota(indices.begin(), indices.end(), first);
  const data::ShowOptions options{.color = isatty(STDOUT_FILENO) != 0,
                                  .ids = arguments.count("ids") != 0};
  fmt::print("{}", data::show(*opened.set, indices, options));
  return 0;
}

int run_stats(const po::variables_map& arguments, comm::Session*) {
  static const Command self = data_stats_command();
  const Opened opened = open(arguments, self);
  const int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  fmt::print("{}",
             data::stats_text(data::measure(*opened.set, arguments["limit"].as<int64_t>(), threads),
                              opened.set->summary()));
  return 0;
}

int run_verify(const po::variables_map& arguments, comm::Session*) {
  static const Command self = data_verify_command();
  const Opened opened = open(arguments, self);  // form, layout and a sample are checked here
  const int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  const data::Stats stats =
      data::measure(*opened.set, -1, threads);  // every example is tokenized and masked
  fmt::print(
      "{}\nchecked {} examples: {} trained tokens of {}, {} truncated, {} left out\nno fault "
      "found\n",
      opened.set->summary().text(),
      stats.examples,
      stats.targets,
      stats.tokens,
      stats.truncated,
      stats.skipped);
  return 0;
}

void add_common(po::options_description& options, po::positional_options_description& positional) {
  options.add_options()("config", po::value<std::string>(), "a run's YAML file")(
      "model,m", po::value<std::string>(), "model folder (tokenizer and chat template)")(
      "data,d",
      po::value<std::vector<std::string>>()->multitoken(),
      "files, instead of data.train")(
      "set",
      po::value<std::vector<std::string>>(),
      "KEY=VALUE over the file's, such as data.layout=alpaca; may be repeated");
  positional.add("config", 1);
}

}  // namespace

Command data_show_command() {
  return {.name = "data show",
          .summary = "examples as the model sees them, trained tokens marked",
          .usage = "kamerton data show RUN.yaml | --model DIR --data FILE [--first 1] [--count 3]",
          .description =
              "Examples:\n  kamerton data show configs/quickstart/run.yaml\n"
              "  kamerton data show --model models/SmolLM2-135M-Instruct --data "
              "configs/quickstart/train.jsonl --count 1 --ids",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_common(options, positional);
                options.add_options()("first",
                                      po::value<int64_t>()->default_value(1),
                                      "number of the first example, from 1")(
                    "count,n", po::value<int64_t>()->default_value(3), "how many")(
                    "ids", "token ids beside the text");
              },
          .run = run_show};
}

Command data_stats_command() {
  return {.name = "data stats",
          .summary = "how long examples are and what would be truncated",
          .usage = "kamerton data stats RUN.yaml | --model DIR --data FILE",
          .description = "Example:\n  kamerton data stats configs/quickstart/run.yaml",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_common(options, positional);
                options.add_options()("limit",
                                      po::value<int64_t>()->default_value(-1),
                                      "first so many examples only");
              },
          .run = run_stats};
}

Command data_verify_command() {
  return {.name = "data verify",
          .summary = "checks every example before a run does",
          .usage = "kamerton data verify RUN.yaml | --model DIR --data FILE",
          .description =
              "Tokenizes and masks every record; the first fault is named with file and line (exit "
              "code 65).\n\nExample:\n"
              "  kamerton data verify configs/quickstart/run.yaml",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_common(options, positional);
              },
          .run = run_verify};
}

}  // namespace kamerton::cli
