// SPDX-License-Identifier: Apache-2.0
// kamerton data verify, redact: refusing silent wrongness, and mending one kind of it.
#include <filesystem>

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/data/redact.h"
#include "kamerton/data/verify.h"

#include "data_open.h"
#include "names_elsewhere.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

int write_clean_copy(const data::DataConfig& config, const std::string& to) {
  std::vector<std::string> files = config.train;
  for (const data::SourceConfig& source : config.sources) {
    files.insert(files.end(), source.files.begin(), source.files.end());
  }
  fmt::print("{}", data::redact(files, config, to).text());
  fmt::print("clean copy: {}\n", to);
  return 0;
}

int run_verify(const po::variables_map& arguments, comm::Session*) {
  static const Command self = data_verify_command();
  const OpenedModel opened = open_model(arguments, self);
  data::VerifyOptions options;
  options.threads = threads_of(arguments);
  options.duplicates = arguments.count("no-duplicates") == 0;
  options.similarity = arguments["similarity"].as<double>();
  if (!(options.similarity > 0 && options.similarity <= 1)) {
    throw Error(ErrorKind::Config,
                {.where = "cli.data_verify",
                 .what = "--similarity is not a share",
                 .got = fmt::format("{}", options.similarity),
                 .allowed = "more than 0, at most 1"});
  }
  const data::VerifyReport report =
      data::verify(opened.config.data, *opened.bundle, opened.max_positions, options);
  fmt::print("{}", report.text());
  const int64_t errors = report.count(data::Severity::Error);
  const int64_t warnings = report.count(data::Severity::Warning);
  if (arguments.count("redact") != 0) {
    write_clean_copy(opened.config.data, arguments["redact"].as<std::string>());
  }
  if (errors == 0 && (warnings == 0 || arguments.count("strict") == 0)) {
    fmt::print("{}\n", warnings == 0 ? "no fault found" : "no error found");
    return 0;
  }
  throw Error(
      ErrorKind::Data,
      {.where = "cli.data_verify",
       .what = "the data should not be trained on as it is",
       .got = fmt::format(
           "{} errors, {} warnings; first: {}", errors, warnings, report.findings.front().rule),
       .hint = "the remedies above"});
}

bool is_run_file(const std::string& path) {
  const std::string suffix = std::filesystem::path(path).extension().string();
  return suffix == ".yaml" || suffix == ".yml";
}

int run_redact(const po::variables_map& arguments, comm::Session*) {
  static const Command self = data_redact_command();
  const std::string to = required(arguments, "to", self);
  const auto files = value_or<std::vector<std::string>>(arguments, "file", {});
  if (files.empty()) {
    required(arguments, "file", self);
  }
  const auto overrides = value_or<std::vector<std::string>>(arguments, "set", {});
  if (files.size() == 1 && is_run_file(files.front())) {
    return write_clean_copy(load_run_config(files.front(), overrides).data, to);
  }
  RunConfig config;
  config::Document document = config::Document::from_text("{}", "--set");
  for (const std::string& assignment : overrides) {
    document.set(assignment);
  }
  document.fill(config, names_elsewhere());
  config.data.train = files;
  return write_clean_copy(config.data, to);
}

}  // namespace

Command data_verify_command() {
  return {.name = "data verify",
          .summary = "checks every example before a run does",
          .usage =
              "kamerton data verify RUN.yaml | --model DIR --data FILE [--strict] [--redact "
              "OUT.jsonl]",
          .description =
              "Reads, tokenizes and masks every record of data.train and data.eval and compares "
              "records with each other. Each finding comes with\nfile:line and a remedy; an error "
              "ends with exit code 65. Looked for: nothing or little trained, end token never "
              "trained, masks that\ncannot be proved, doubled begin-of-text, answers cut or empty, "
              "held-out records in the training files (equal or nearly), duplicates,\nencoding "
              "damage, control tokens in people's text, personal data.\n\nExamples:\n"
              "  kamerton data verify configs/quickstart/run.yaml\n"
              "  kamerton data verify configs/quickstart/run.yaml --strict --no-duplicates",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                add_data_options(options, positional);
                options.add_options()("strict", "a warning, too, ends with exit code 65")(
                    "no-duplicates", "do not compare records with each other")(
                    "similarity",
                    po::value<double>()->default_value(0.8, "0.8"),
                    "share of common word triples from which on records are near-duplicates")(
                    "redact",
                    po::value<std::string>(),
                    "also write data.train without personal data to this file")(
                    "threads", po::value<int64_t>(), "default: a thread a processor");
              },
          .run = run_verify};
}

Command data_redact_command() {
  return {.name = "data redact",
          .summary = "a copy of data files without personal data",
          .usage = "kamerton data redact RUN.yaml | FILE... --to OUT.jsonl",
          .description =
              "E-mail addresses, telephone, PESEL, IBAN and payment card numbers (check digits "
              "verified) become [EMAIL], [PHONE], [PESEL], [IBAN],\n[CARD] in every string of "
              "every record. Prints counts by kind, never text.\n\nExample:\n"
              "  kamerton data redact configs/quickstart/train.jsonl --to clean.jsonl",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()("file",
                                      po::value<std::vector<std::string>>(),
                                      "a run's YAML file (its data.train), or data files")(
                    "to", po::value<std::string>(), "the clean copy: JSONL")(
                    "set",
                    po::value<std::vector<std::string>>(),
                    "KEY=VALUE, such as data.format=text");
                positional.add("file", -1);
              },
          .run = run_redact};
}

}  // namespace kamerton::cli
