// SPDX-License-Identifier: Apache-2.0
// kamerton eval: loss, perplexity and answers on a file.
#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/eval/evaluator.h"
#include "kamerton/mesh/threads.h"
#include "kamerton/storage/filesystem.h"

#include "assemble.h"
#include "command.h"
#include "mixed_model.h"
#include "snapshot_reader.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

struct Wanted {
  bool loss = false;
  std::optional<eval::Match> answers;
};

Wanted read_metrics(const std::vector<std::string>& names) {
  Wanted wanted;
  for (const std::string& name : names) {
    if (name == "loss") {
      wanted.loss = true;
    } else if (name == "exact_match") {
      wanted.answers = eval::Match::Exact;
    } else if (name == "first_line") {
      wanted.answers = eval::Match::FirstLine;
    } else {
      throw Error(ErrorKind::Config,
                  {.where = "cli.eval",
                   .what = "no such metric",
                   .got = "'" + name + "'",
                   .allowed = "loss, exact_match, first_line"});
    }
  }
  return wanted;
}

/// positions: what the model takes. Whole examples are measured unless --set says otherwise; only
/// texts that are cut into windows keep the default length of these.
data::DataConfig data_config(const po::variables_map& arguments, int64_t positions) {
  data::DataConfig config;
  if (arguments.count("set") != 0) {
    config::Document document = config::Document::from_text("{}", "--set");
    for (const std::string& assignment : arguments["set"].as<std::vector<std::string>>()) {
      document.set(assignment);
    }
    document.fill(config);
  }
  config.eval = arguments["data"].as<std::vector<std::string>>();
  if (!config.sequence_length && !config.text_windows) {
    config.sequence_length = positions;
  }
  return config;
}

/// All ranks' answers on rank 0, in the order of the file.
std::vector<eval::Answer> gather(const eval::AnswerReport& report, const comm::Group& world) {
  core::Json mine = core::Json::array();
  for (const eval::Answer& answer : report.answers) {
    mine.push_back({answer.index, answer.question, answer.reference, answer.text, answer.correct});
  }
  std::vector<eval::Answer> all;
  for (const std::string& part : world.all_gather(
           std::string_view(mine.dump(-1, ' ', false, core::Json::error_handler_t::replace)))) {
    for (const core::Json& row : core::parse_json(part, "eval.answers")) {
      all.push_back({row[0].get<int64_t>(),
                     row[1].get<std::string>(),
                     row[2].get<std::string>(),
                     row[3].get<std::string>(),
                     row[4].get<bool>()});
    }
  }
  std::sort(all.begin(), all.end(), [](const eval::Answer& a, const eval::Answer& b) {
    return a.index < b.index;
  });
  return all;
}

core::Json to_json(const std::vector<eval::Answer>& answers) {
  core::Json rows = core::Json::array();
  for (const eval::Answer& answer : answers) {
    rows.push_back({{"index", answer.index},
                    {"question", answer.question},
                    {"reference", answer.reference},
                    {"answer", answer.text},
                    {"correct", answer.correct}});
  }
  return rows;
}

eval::AnswerOptions answer_options(const po::variables_map& arguments,
                                   eval::Match match,
                                   const text::TokenizerBundle& bundle) {
  eval::AnswerOptions options;
  options.match = match;
  options.sample.max_new_tokens = number_of(arguments, "max-new-tokens", 1);
  options.sample.vocab_limit = bundle.tokenizer.vocab_size();
  options.system = value_or<std::string>(arguments, "system", "");
  options.limit = number_of(arguments, "limit", 0);
  return options;
}

/// With --mix the adapter that each record names takes its part of a batch.
struct Subject {
  InferenceModel loaded;
  std::unique_ptr<MixedModel> mixed;

  Subject(const po::variables_map& arguments, const Command& self) {
    if (arguments.count("mix") == 0) {
      loaded = load_model(arguments, self);
      return;
    }
    if (arguments.count("adapter") + arguments.count("checkpoint") != 0) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.eval",
                   .what = "--mix excludes --adapter and --checkpoint",
                   .allowed = "one of them",
                   .hint = "a checkpoint's adapter: kamerton export --checkpoint RUN --to DIR"});
    }
    loaded.folder = required(arguments, "model", self);
    mixed = std::make_unique<MixedModel>(arguments, loaded.folder);
  }
  model::Decoder& decoder() { return mixed ? mixed->decoder() : *loaded.decoder; }
};

/// The adapters of all records; wrong names show before anything is computed.
eval::BeforeForward chooser(Subject& subject, const data::EvalSet& set) {
  if (!subject.mixed) {
    return {};
  }
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < set.size(); ++i) {
    const core::Json record = core::parse_json(set.raw(i), set.origin(i));
    numbers.push_back(subject.mixed->number_of(record, set.origin(i)));
  }
  return [&mixed = *subject.mixed, numbers = std::move(numbers)](
             const std::vector<int64_t>& examples, const std::vector<int64_t>& offsets) {
    std::vector<int64_t> chosen;
    for (const int64_t example : examples) {
      chosen.push_back(numbers[static_cast<size_t>(example)]);
    }
    mixed.choose(chosen, offsets);
  };
}

void show_answers(const std::vector<eval::Answer>& answers, int64_t count) {
  for (int64_t i = 0; i < std::min<int64_t>(count, static_cast<int64_t>(answers.size())); ++i) {
    const eval::Answer& answer = answers[static_cast<size_t>(i)];
    fmt::print("\n[{}] {}\n  expected: {}\n  answered: {}  ({})\n",
               answer.index + 1,
               answer.question,
               answer.reference,
               answer.text,
               answer.correct ? "right" : "wrong");
  }
}

int run_eval(const po::variables_map& arguments, comm::Session* session) {
  static const Command self = eval_command();
  const comm::Group& world = session->world();
  if (arguments.count("data") == 0) {
    required(arguments, "data", self);
  }
  const Wanted wanted = read_metrics(arguments["metric"].as<std::vector<std::string>>());
  // Before anything is loaded.
  const int64_t rows = number_of(arguments, "rows", 1, 1 << 20);
  const int64_t examples = number_of(arguments, "examples", 0);
  number_of(arguments, "limit", 0);
  number_of(arguments, "max-new-tokens", 1);
  if (world.rank() == 0) {
    check_output_file(arguments, "json");
  }
  mesh::choose_threads(session->topology());
  take_device(arguments["device"].as<std::string>(), *session);
  Subject subject(arguments, self);
  const text::TokenizerBundle bundle = text::load_bundle(subject.loaded.folder);
  const int64_t positions = subject.decoder().config().context();
  const data::EvalSet set = data::open_eval(data_config(arguments, positions), bundle, positions);
  const eval::BeforeForward before_forward = chooser(subject, set);

  core::Json result = {{"examples", set.size()}};
  if (wanted.loss) {
    const eval::LossReport report =
        eval::evaluate_loss(subject.decoder(), set, rows, world, before_forward);
    result.update({{"loss", report.loss()},
                   {"perplexity", report.perplexity()},
                   {"token_accuracy", report.token_accuracy()},
                   {"targets", report.targets}});
  }
  std::vector<eval::Answer> answers;
  if (wanted.answers.has_value()) {
    eval::AnswerOptions options = answer_options(arguments, *wanted.answers, bundle);
    options.before_forward = before_forward;
    const eval::AnswerReport report =
        eval::evaluate_answers(subject.decoder(), set, options, world);
    result.update(
        {{"accuracy", report.accuracy()}, {"correct", report.correct}, {"total", report.total}});
    answers = gather(report, world);
  }
  if (world.rank() != 0) {
    return 0;
  }
  for (const auto& [name, value] : result.items()) {
    fmt::print("{:<16}{}\n",
               name,
               value.is_number_float() ? fmt::format("{:.6g}", value.get<double>()) : value.dump());
  }
  show_answers(answers, examples);
  if (arguments.count("json") != 0) {
    result["answers"] = to_json(answers);
    storage::write_file_atomic(
        storage::posix_filesystem(),
        arguments["json"].as<std::string>(),
        result.dump(2, ' ', false, core::Json::error_handler_t::replace) + "\n");
  }
  return 0;
}

void add_eval_options(po::options_description& options) {
  options.add_options()("model,m", po::value<std::string>(), "model folder")(
      "adapter,a", po::value<std::string>(), "PEFT adapter folder, put on top of the model")(
      "checkpoint",
      po::value<std::string>(),
      "instead of model and adapter: a run's folder, or one of its checkpoints")(
      "data,d", po::value<std::vector<std::string>>()->multitoken(), "files to evaluate on")(
      "metric",
      po::value<std::vector<std::string>>()->default_value({"loss"}, "loss"),
      "loss, exact_match or first_line; may be repeated")(
      "max-new-tokens,n", po::value<int64_t>()->default_value(64), "length of an answer at most")(
      "system", po::value<std::string>(), "a system's message before every conversation")(
      "limit",
      po::value<int64_t>()->default_value(0),
      "answer the first so many examples only; 0: all")(
      "examples", po::value<int64_t>()->default_value(0), "print so many answers")(
      "mix",
      po::value<std::vector<std::string>>(),
      "NAME=DIR: an adapter that JSON records name in `adapter`; may be repeated; "
      "records of one batch go through their own")(
      "json", po::value<std::string>(), "also write figures and all answers to this file")(
      "rows", po::value<int64_t>()->default_value(8), "examples computed at once for the loss")(
      "dtype", po::value<std::string>()->default_value("auto"), "auto, fp32 or bf16")(
      "device", po::value<std::string>()->default_value("auto"), "auto, cpu or cuda")(
      "set",
      po::value<std::vector<std::string>>(),
      "a key of the data section, such as --set layout=alpaca; may be repeated");
}

}  // namespace

Command eval_command() {
  return {.name = "eval",
          .summary = "loss, perplexity and accuracy of answers on a file",
          .usage =
              "kamerton eval --model DIR [--adapter DIR] --data FILE [--metric loss] [--metric "
              "exact_match|first_line]",
          .description =
              "Metrics: loss (mean over trained tokens, with perplexity and token accuracy), "
              "exact_match (the generated answer equals the\n"
              "reference), first_line (their first lines are equal, letter case ignored). Under "
              "mpirun the examples are spread over ranks.\n"
              "An example is measured whole, up to the model's limit; --set sequence_length=N cuts "
              "it as a training run with\ndata.sequence_length: N does.\n\n"
              "Examples:\n"
              "  kamerton eval --model models/SmolLM2-135M-Instruct --data "
              "configs/quickstart/heldout.jsonl\n"
              "  kamerton eval --checkpoint runs/quickstart --data "
              "configs/quickstart/heldout.jsonl --metric first_line --examples 3\n"
              "  mpirun -np 2 kamerton eval --model models/SmolLM2-135M-Instruct --adapter "
              "runs/quickstart/adapter \\\n"
              "      --data configs/quickstart/heldout.jsonl --metric first_line --json after.json",
          .needs_ranks = true,
          .add_options = [](po::options_description& options,
                            po::positional_options_description&) { add_eval_options(options); },
          .run = run_eval};
}

}  // namespace kamerton::cli
