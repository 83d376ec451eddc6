// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/config.h"

#include <algorithm>

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

const std::vector<std::string> kFormats = {
    "auto", "jsonl", "json", "csv", "tsv", "text", "parquet", "arrow"};
const std::vector<std::string> kLayouts = {"auto",
                                           "messages",
                                           "prompt_completion",
                                           "alpaca",
                                           "sharegpt",
                                           "text",
                                           "preference",
                                           "unpaired_preference",
                                           "prompt",
                                           "stepwise"};

void describe_form(config::Fields& f, std::string& format, std::string& layout) {
  f.knob("format",
         format,
         {.text = "form of the files (what is in them, for .gz and .zst); auto goes by the first "
                  "bytes and the name (.txt and .md are plain text)",
          .choices = kFormats});
  f.knob("layout",
         layout,
         {.text = "columns of a record; auto goes by the first records", .choices = kLayouts});
}

void describe_mixture(config::Fields& f, DataConfig& c) {
  f.knob("train",
         c.train,
         {.text = "files with training examples, folders or patterns (*, ?, [a-z], **): JSONL, a "
                  "JSON array, CSV, TSV or plain text, also as .gz and .zst; Parquet and Arrow; "
                  "a folder that `data prepare` made"});
  f.knob("eval", c.eval, {.text = "files with held-out examples, in the same forms"});
  f.list("sources", c.sources, "Sources of a mixture, instead of data.train.");
  f.knob("mixture_temperature",
         c.mixture_temperature,
         {.text = "sources without weights are drawn in proportion to size^(1/temperature): 1 as "
                  "large as they are, larger evens them out (arXiv 1910.10683)",
          .min = 1,
          .max = 1000});
  f.knob("validation_fraction",
         c.validation_fraction,
         {.text = "share of the training records that is held out for evaluation, chosen by a hash "
                  "of each record: the same record is always on the same side, also when data is "
                  "appended",
          .cost = "every record is read once before the run, 8 bytes a record in index_dir",
          .min = 0,
          .max = 0.9});
}

void describe_sources(config::Fields& f, DataConfig& c) {
  describe_mixture(f, c);
  describe_form(f, c.format, c.layout);
  f.section("columns", c.columns, "Columns that a file names otherwise.");
  f.knob("max_expansion",
         c.max_expansion,
         {.text = "a compressed, Parquet or Arrow file that grows to more than this many times its "
                  "size (and to more than 64 MiB) is refused",
          .cost = "disk space in index_dir",
          .min = 1,
          .max = 1e6});
  f.knob("max_line_bytes",
         c.max_line_bytes,
         {.text = "longest record; a longer one is a bad record",
          .unit = "bytes",
          .cost = "memory for one record",
          .min = 1,
          .max = 1 << 30});
  f.knob("on_bad_record",
         c.on_bad_record,
         {.text = "bad encoding, bad JSON or another layout: stop, or leave the record out and "
                  "count it",
          .choices = {"error", "skip"}});
  f.knob("max_bad_records",
         c.max_bad_records,
         {.text = "more bad records than this stop the run (on_bad_record: skip)", .min = 0});
  f.knob("check_bytes",
         c.check_bytes,
         {.text = "files together up to this size are read and checked record by record before the "
                  "run; of larger ones a sample, the rest while reading",
          .unit = "bytes",
          .cost = "about a second per 50 MB at start",
          .min = 0});
  f.knob("index_dir",
         c.index_dir,
         {.text = "folder for the tables of where records lie in large files (16 bytes a record) "
                  "and for what compressed, Parquet and Arrow files hold; none: the system's "
                  "temporary folder"});
}

void describe_masks(config::Fields& f, DataConfig& c) {
  f.knob(
      "train_on",
      c.train_on,
      {.text = "tokens that are trained; auto: completion for prompt_completion, assistant turns "
               "for conversations, all for text",
       .choices = {"auto", "all", "completion", "assistant"}});
  f.knob("sequence_length",
         c.sequence_length,
         {.text = "tokens of the longest example, and of a packed row; none: 1024 or the model's "
                  "limit if that is lower",
          .unit = "tokens",
          .cost = "activation memory grows with micro_batch_rows times this",
          .min = 2});
  f.knob("too_long",
         c.too_long,
         {.text = "an example longer than sequence_length: keep its start, keep its end, stop, or "
                  "leave it out; what happened is counted and reported",
          .choices = {"truncate", "truncate_start", "error", "skip"}});
  f.knob("on_no_target",
         c.on_no_target,
         {.text = "an example without one trained token: stop, or leave it out and count it",
          .choices = {"error", "skip"}});
  f.knob("require_end_token",
         c.require_end_token,
         {.text = "stop when no example of a sample trains an end token: such a model never learns "
                  "to stop (raw text: said, not refused)"});
  f.knob("text_split",
         c.text_split,
         {.text = "what a document of a plain text file is: a stretch between blank lines, or the "
                  "file",
          .choices = {"blank_lines", "file"}});
  f.knob("text_windows",
         c.text_windows,
         {.text = "raw text only: join all documents, an end token after each, and cut exactly "
                  "every sequence_length tokens, so that nothing is truncated; attention still "
                  "stays within a document",
          .cost = "all text is tokenized once before the run, 4 bytes a token in index_dir"});
  f.knob("template_time",
         c.template_time,
         {.text = "the time that chat templates see as now, fixed so that every run and rank "
                  "renders the same",
          .unit = "seconds since 1970"});
}

void describe_rows(config::Fields& f, DataConfig& c) {
  f.knob("packing",
         c.packing,
         {.text = "fill each row with several examples, without attention between them; the loss "
                  "is that of separate rows",
          .cost = "a row holds up to sequence_length tokens whatever the examples' lengths"});
  f.knob("packing_strategy",
         c.packing_strategy,
         {.text = "next_fit: a row takes the next examples until one does not fit; bfd: the "
                  "fullest rows, best-fit decreasing over 1,000 examples; bfd_split: the same, "
                  "long examples go on in another row instead of being cut; wrapped: examples end "
                  "to end, cut at every row's end (the last three as TRL)",
          .cost = "bfd, bfd_split and wrapped: without known lengths (train.steps given) each rank "
                  "tokenizes every example, not only its own",
          .choices = {"next_fit", "bfd", "bfd_split", "wrapped"}});
  f.knob("group_by_length",
         c.group_by_length,
         {.text = "without packing: the rows of an update hold examples of about the same length, "
                  "so that no rank waits for another's longer rows; order is random between "
                  "updates",
          .cost = "as packing_strategy: bfd"});
  f.knob("shuffle",
         c.shuffle,
         {.text = "a new order each epoch, a pure function of the seed; off: the order of the "
                  "files"});
  f.knob("batch_rows",
         c.batch_rows,
         {.text = "rows of one optimizer update over all ranks and micro-batches; a multiple of "
                  "the number of ranks",
          .unit = "rows",
          .cost = "time of a step",
          .min = 1,
          .max = 1 << 24});
  f.knob("micro_batch_rows",
         c.micro_batch_rows,
         {.text = "rows that one rank computes at once; divides batch_rows / ranks",
          .unit = "rows",
          .cost = "activation memory",
          .min = 1,
          .max = 1 << 20});
  f.knob("prefetch",
         c.prefetch,
         {.text = "steps that a thread of its own prepares ahead; 0: none, the step waits",
          .unit = "steps",
          .min = 0,
          .max = 64});
}

[[noreturn]] void exclusive(const std::string& what, const std::string& hint) {
  throw core::Error(core::ErrorKind::Config, {.where = "data.config", .what = what, .hint = hint});
}

void check_exclusive(const DataConfig& config) {
  if (config.packing && config.group_by_length) {
    exclusive("data.packing and data.group_by_length exclude each other",
              "data.packing_strategy: bfd already fills rows by length");
  }
  if (config.text_windows && config.packing && config.packing_strategy != "next_fit") {
    exclusive("windows of data.text_windows are whole rows: nothing is left to pack",
              "data.packing: false");
  }
  if ((config.answers == Answers::Pair || config.answers == Answers::Judged) &&
      (config.group_by_length || (config.packing && config.packing_strategy != "next_fit"))) {
    exclusive("pairs of answers are packed by next_fit only",
              "data.packing_strategy: next_fit, data.group_by_length: false");
  }
  if (config.answers == Answers::Steps && config.packing && packing_splits(config)) {
    exclusive("answers judged by steps are not cut to rows",
              "data.packing_strategy: next_fit or bfd");
  }
  if (config.answers == Answers::Asked && (config.packing || config.group_by_length)) {
    exclusive(
        "data.packing and data.group_by_length do not fit an objective that generates: rows are "
        "prompts, whose answers are not there yet",
        "data.packing: false, data.group_by_length: false");
  }
}

void describe_preparation(config::Fields& f, DataConfig& c) {
  f.knob("verify",
         c.verify,
         {.text = "what a run checks of its data at the start: the rules of `kamerton data verify` "
                  "on a sample, where an error stops the run and a warning is said; strict: a "
                  "warning stops it, too; off: nothing, not even that an end token is trained",
          .choices = {"quick", "strict", "off"}});
  f.knob("store",
         c.store,
         {.text = "tokens that `kamerton data prepare` has made: used when they are there and "
                  "belong to these files, tokenizer, template and settings; off: never; require: "
                  "stop without them",
          .cost = "the data files and the store are read once at the start, to compare digests",
          .choices = {"auto", "off", "require"}});
  f.knob("store_dir", c.store_dir, {.text = "folder of the token stores, one folder each"});
}

}  // namespace

std::vector<std::pair<std::string, std::string>> ColumnMap::given() const {
  std::vector<std::pair<std::string, std::string>> result;
  const auto add = [&](const char* name, const std::optional<std::string>& column) {
    if (column) {
      result.emplace_back(name, *column);
    }
  };
  add("text", text);
  add("messages", messages);
  add("conversations", conversations);
  add("prompt", prompt);
  add("completion", completion);
  add("chosen", chosen);
  add("rejected", rejected);
  add("label", label);
  add("instruction", instruction);
  add("input", input);
  add("output", output);
  add("system", system);
  add("history", history);
  add("tools", tools);
  return result;
}

void describe(config::Fields& f, ColumnMap& c) {
  f.knob("text", c.text, {.text = "the file's column that holds raw text"});
  f.knob("messages", c.messages, {.text = "... a conversation of {role, content}"});
  f.knob("conversations", c.conversations, {.text = "... a conversation of {from, value}"});
  f.knob("prompt", c.prompt, {.text = "... the prompt"});
  f.knob("completion", c.completion, {.text = "... the answer to it"});
  f.knob("chosen", c.chosen, {.text = "... the better of two answers"});
  f.knob("rejected", c.rejected, {.text = "... the worse one"});
  f.knob("label", c.label, {.text = "... whether the completion is a good one: true or false"});
  f.knob("instruction", c.instruction, {.text = "... alpaca's instruction"});
  f.knob("input", c.input, {.text = "... alpaca's input"});
  f.knob("output", c.output, {.text = "... alpaca's output"});
  f.knob("system", c.system, {.text = "... the system message (alpaca, sharegpt)"});
  f.knob("history", c.history, {.text = "... alpaca's earlier turns"});
  f.knob("tools", c.tools, {.text = "... the tools that a conversation may call"});
}

void describe(config::Fields& f, SourceConfig& c) {
  f.knob("name", c.name, {.text = "what messages call it; the first file when empty"});
  f.knob("files", c.files, {.text = "as data.train"});
  f.knob(
      "weight",
      c.weight,
      {.text = "share of the examples drawn from it, relative to the other sources' weights (all "
               "have one, or none); none: data.mixture_temperature decides",
       .min = 0,
       .min_exclusive = true});
  f.knob("max_examples",
         c.max_examples,
         {.text = "only the first so many of its examples are used", .min = 1});
  describe_form(f, c.format, c.layout);
  f.section("columns", c.columns, "Columns that its files name otherwise; none: data.columns.");
}

void describe(config::Fields& fields, DataConfig& config) {
  describe_sources(fields, config);
  describe_masks(fields, config);
  describe_rows(fields, config);
  describe_preparation(fields, config);
}

bool packing_splits(const DataConfig& config) {
  return config.packing &&
         (config.packing_strategy == "bfd_split" || config.packing_strategy == "wrapped");
}

bool has_eval(const DataConfig& config) {
  return !config.eval.empty() || config.validation_fraction > 0;
}

void validate(const DataConfig& config, int world_size, int64_t max_positions) {
  check_exclusive(config);
  if (config.batch_rows % world_size != 0) {
    const int64_t below = config.batch_rows / world_size * world_size;
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "data.config",
         .what = "the rows of a batch cannot be shared evenly by the ranks",
         .got = fmt::format("data.batch_rows = {} on {} ranks", config.batch_rows, world_size),
         .allowed = fmt::format("a multiple of {}", world_size),
         .hint = fmt::format("data.batch_rows = {}", below > 0 ? below : world_size)});
  }
  const int64_t rows_per_rank = config.batch_rows / world_size;
  if (rows_per_rank % config.micro_batch_rows != 0) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "data.config",
         .what = "the rows of a rank cannot be cut into equal micro-batches",
         .got = fmt::format(
             "{} rows a rank, data.micro_batch_rows = {}", rows_per_rank, config.micro_batch_rows),
         .allowed = "a divisor of batch_rows / ranks",
         .hint = "data.micro_batch_rows = 1, or another data.batch_rows"});
  }
  resolved_sequence_length(config, max_positions);
}

int64_t resolved_sequence_length(const DataConfig& config, int64_t max_positions) {
  if (!config.sequence_length) {
    return std::min<int64_t>(1024, max_positions);
  }
  if (*config.sequence_length > max_positions) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "data.config",
         .what = "sequences would be longer than the model can take",
         .got = fmt::format("data.sequence_length = {}", *config.sequence_length),
         .allowed = fmt::format("at most {} (max_position_embeddings)", max_positions),
         .hint = fmt::format("data.sequence_length = {}", max_positions)});
  }
  return *config.sequence_length;
}

}  // namespace kamerton::data
