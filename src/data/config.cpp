// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/config.h"

#include <algorithm>

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

void describe_sources(config::Fields& f, DataConfig& c) {
  f.knob("train",
         c.train,
         {.text = "files with training examples: JSONL, a JSON array, or plain text"});
  f.knob("eval", c.eval, {.text = "files with held-out examples"});
  f.knob("format",
         c.format,
         {.text = "form of the files; auto goes by the first bytes and the name (.txt and .md are "
                  "plain text)",
          .choices = {"auto", "jsonl", "json", "text"}});
  f.knob("layout",
         c.layout,
         {.text = "columns of a record; auto goes by the first records",
          .choices = {"auto", "messages", "prompt_completion", "alpaca", "sharegpt", "text"}});
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
         {.text = "folder for the tables of where records lie in large files (16 bytes a record); "
                  "none: the system's temporary folder"});
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

void describe(config::Fields& fields, DataConfig& config) {
  describe_sources(fields, config);
  describe_masks(fields, config);
  describe_rows(fields, config);
  describe_preparation(fields, config);
}

void validate(const DataConfig& config, int world_size, int64_t max_positions) {
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
