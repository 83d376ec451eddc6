// SPDX-License-Identifier: Apache-2.0
// kamerton data show, stats: looking at what a run would train on.
#include <algorithm>
#include <numeric>
#include <thread>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "kamerton/data/inspect.h"
#include "kamerton/data/picture.h"
#include "kamerton/model/architecture.h"
#include "kamerton/storage/filesystem.h"

#include "data_open.h"
#include "names_elsewhere.h"

namespace kamerton::cli {

RunConfig data_config_of(const po::variables_map& arguments, const Command& command) {
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
    document.fill(config, names_elsewhere());
  }
  config.model.path = value_or<std::string>(arguments, "model", config.model.path);
  if (arguments.count("data") != 0) {
    config.data.train = arguments["data"].as<std::vector<std::string>>();
    config.data.sources.clear();
  }
  return config;
}

OpenedModel open_model(const po::variables_map& arguments, const Command& command) {
  OpenedModel opened{
      .config = data_config_of(arguments, command), .bundle = nullptr, .max_positions = 0};
  opened.bundle =
      std::make_unique<text::TokenizerBundle>(text::load_bundle(opened.config.model.path));
  opened.max_positions = model::read_config(opened.config.model.path).context();
  return opened;
}

OpenedData open_data(const po::variables_map& arguments, const Command& command) {
  return open_data(open_model(arguments, command));
}

OpenedData open_data(OpenedModel model) {
  OpenedData opened{.model = std::move(model), .set = nullptr};
  opened.set = std::make_unique<data::Dataset>(
      data::open_train(opened.model.config.data, *opened.model.bundle, opened.model.max_positions));
  return opened;
}

int threads_of(const po::variables_map& arguments) {
  const auto given = value_or<int64_t>(arguments, "threads", 0);
  return given > 0 ? static_cast<int>(std::min<int64_t>(given, 1024))
                   : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void write_text_file(const std::string& path, const std::string& text) {
  storage::write_file_atomic(storage::posix_filesystem(), path, text);
}

void add_data_options(po::options_description& options,
                      po::positional_options_description& positional) {
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

namespace {

int run_show(const po::variables_map& arguments, comm::Session*) {
  static const Command self = data_show_command();
  check_output_file(arguments, "html");
  const OpenedData opened = open_data(arguments, self);
  const int64_t first = number_of(arguments, "first", 1, opened.set->size());
  const int64_t count = number_of(arguments, "count", 1);
  std::vector<int64_t> indices(
      static_cast<size_t>(std::min(count, opened.set->size() - (first - 1))));
  std::iota(indices.begin(), indices.end(), first - 1);
  if (arguments.count("html") != 0) {
    const auto path = arguments["html"].as<std::string>();
    write_text_file(path, data::show_html(*opened.set, indices));
    fmt::print("{} examples in {}\n", indices.size(), path);
    return 0;
  }
  const data::ShowOptions options{.color = isatty(STDOUT_FILENO) != 0,
                                  .ids = arguments.count("ids") != 0};
  fmt::print("{}", data::show(*opened.set, indices, options));
  return 0;
}

int run_stats(const po::variables_map& arguments, comm::Session*) {
  static const Command self = data_stats_command();
  check_output_file(arguments, "svg");
  OpenedModel model = open_model(arguments, self);
  // What would stop a run is counted here.
  model.config.data.verify = "off";
  model.config.data.on_no_target = "skip";
  if (model.config.data.too_long == "error") {
    model.config.data.too_long = "truncate";
  }
  const OpenedData opened = open_data(std::move(model));
  const data::Stats stats =
      data::measure(*opened.set, number_of(arguments, "limit", -1), threads_of(arguments));
  fmt::print("{}", data::stats_text(stats, opened.set->summary()));
  if (arguments.count("svg") != 0) {
    const auto path = arguments["svg"].as<std::string>();
    write_text_file(path, data::stats_svg(stats));
    fmt::print("picture: {}\n", path);
  }
  return 0;
}

}  // namespace

Command data_show_command() {
  return {.name = "data show",
          .summary = "examples as the model sees them, trained tokens marked",
          .usage =
              "kamerton data show RUN.yaml | --model DIR --data FILE [--first 1] [--count 3] "
              "[--html FILE]",
          .description =
              "Examples:\n  kamerton data show configs/quickstart/run.yaml\n"
              "  kamerton data show --model models/SmolLM2-135M-Instruct --data "
              "configs/quickstart/train.jsonl --count 1 --ids\n"
              "  kamerton data show configs/quickstart/run.yaml --count 20 --html examples.html",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_data_options(options, positional);
                options.add_options()("first",
                                      po::value<int64_t>()->default_value(1),
                                      "number of the first example, from 1")(
                    "count,n", po::value<int64_t>()->default_value(3), "how many")(
                    "ids", "token ids beside the text")(
                    "html", po::value<std::string>(), "write a page to this file instead");
              },
          .run = run_show};
}

Command data_stats_command() {
  return {.name = "data stats",
          .summary = "how long examples are and what would be truncated",
          .usage = "kamerton data stats RUN.yaml | --model DIR --data FILE [--svg FILE]",
          .description =
              "Lengths, truncation, tokens of each source, how full rows would be.\n\n"
              "Examples:\n  kamerton data stats configs/quickstart/run.yaml\n"
              "  kamerton data stats configs/quickstart/run.yaml --svg lengths.svg",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_data_options(options, positional);
                options.add_options()("limit",
                                      po::value<int64_t>()->default_value(-1),
                                      "first so many examples only")(
                    "svg", po::value<std::string>(), "also draw it into this file")(
                    "threads", po::value<int64_t>(), "default: a thread a processor");
              },
          .run = run_stats};
}

}  // namespace kamerton::cli
