// SPDX-License-Identifier: Apache-2.0
// kamerton import and kamerton export: models and adapters in and out, in Hugging Face form.
#include <filesystem>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/model/gguf_export.h"
#include "kamerton/model/gguf_import.h"
#include "kamerton/storage/gguf.h"
#include "kamerton/storage/pickled_tensors.h"
#include "kamerton/text/gguf_tokenizer.h"
#include "kamerton/text/gguf_vocabulary.h"

#include "assemble.h"
#include "command.h"
#include "snapshot_reader.h"
#include "streamed_model.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

at::ScalarType stored_type(const std::string& name) {
  if (name == "bf16") {
    return at::kBFloat16;
  }
  if (name == "fp32") {
    return at::kFloat;
  }
  throw Error(ErrorKind::Config,
              {.where = "cli.import",
               .what = "--dtype is not known",
               .got = "'" + name + "'",
               .allowed = "bf16, fp32"});
}

void refuse_filled_folder(const std::filesystem::path& folder, bool force) {
  if (!force && std::filesystem::exists(folder) && !std::filesystem::is_empty(folder)) {
    throw Error(ErrorKind::Output,
                {.where = "cli.import",
                 .what = "the output folder is not empty",
                 .got = folder.string(),
                 .allowed = "a new or empty folder",
                 .hint = "--force to replace it"});
  }
}

/// By name; none, with a word about it, of a file of weights alone.
std::map<std::string, std::string> tokenizer_files(const storage::GgufFile& file,
                                                   const std::string& from) {
  if (!text::has_gguf_tokenizer(file.metadata())) {
    core::log_warning(from +
                      " holds no tokenizer: the folder needs a tokenizer.json from elsewhere");
    return {};
  }
  const text::GgufTokenizerFiles tokenizer = text::gguf_tokenizer_files(file.metadata(), from);
  std::map<std::string, std::string> files = {
      {"tokenizer.json", tokenizer.tokenizer_json},
      {"tokenizer_config.json", tokenizer.tokenizer_config_json},
      {"special_tokens_map.json", tokenizer.special_tokens_map_json}};
  if (!tokenizer.chat_template.empty()) {
    files["chat_template.jinja"] = tokenizer.chat_template;
  }
  return files;
}

int run_import(const po::variables_map& arguments, comm::Session*) {
  static const Command self = import_command();
  const std::filesystem::path from = required(arguments, "from", self);
  const std::filesystem::path to = required(arguments, "to", self);
  refuse_filled_folder(to, arguments.count("force") != 0);
  const at::ScalarType dtype = stored_type(arguments["dtype"].as<std::string>());
  if (from.extension() == ".gguf") {
    const storage::GgufFile file = storage::GgufFile::open(from);
    model::import_gguf(from.string(), to.string(), dtype, tokenizer_files(file, from.string()));
  } else if (std::filesystem::is_directory(from) || storage::PickledModel::is_one(from)) {
    const bool folder = std::filesystem::is_directory(from);
    const std::string base = (folder ? from : from.parent_path()).string();
    const auto decoder = load_for_inference(base.empty() ? "." : base,
                                            value_or<std::string>(arguments, "adapter", ""),
                                            "fp32",
                                            "cpu",
                                            folder ? "" : from.string(),
                                            true);
    model::save_model(to.string(), *decoder, {.dtype = dtype, .copy_from = base});
  } else {
    throw Error(ErrorKind::Config,
                {.where = "cli.import",
                 .what = std::filesystem::exists(from) ? "this cannot be imported"
                                                       : "there is nothing at this path",
                 .got = from.string(),
                 .allowed = "a .gguf file, a Hugging Face model folder, or its pytorch_model.bin"});
  }
  fmt::print("{}\n", to.string());
  return 0;
}

storage::GgmlType gguf_type(const std::string& name) {
  const std::string_view known[] = {"f16", "bf16", "q8_0", "fp32"};
  const storage::GgmlType types[] = {storage::GgmlType::F16,
                                     storage::GgmlType::BF16,
                                     storage::GgmlType::Q8_0,
                                     storage::GgmlType::F32};
  for (size_t i = 0; i < std::size(known); ++i) {
    if (name == known[i]) {
      return types[i];
    }
  }
  throw Error(ErrorKind::Config,
              {.where = "cli.export",
               .what = "--dtype is not known for GGUF",
               .got = "'" + name + "'",
               .allowed = fmt::format("{}", fmt::join(known, ", "))});
}

/// One file for llama.cpp, from a checkpoint or a model folder, tensor by tensor.
void write_gguf(const po::variables_map& arguments, const std::filesystem::path& to) {
  const std::string folder = value_or<std::string>(arguments, "model", "");
  if (!arguments.count("force") && std::filesystem::exists(to)) {
    throw Error(ErrorKind::Output,
                {.where = "cli.export",
                 .what = "the output file exists",
                 .got = to.string(),
                 .allowed = "a new file",
                 .hint = "--force to replace it"});
  }
  const storage::GgmlType type = gguf_type(value_or<std::string>(arguments, "dtype", "f16"));
  const bool from_checkpoint = arguments.count("checkpoint") != 0;
  if (!from_checkpoint && folder.empty()) {
    throw Error(ErrorKind::Config,
                {.where = "cli.export",
                 .what = "nothing to export is named",
                 .allowed = "--checkpoint RUN, or --model DIR with --format gguf"});
  }
  const StreamedModel source =
      from_checkpoint
          ? stream_checkpoint(
                arguments["checkpoint"].as<std::string>(), folder, arguments.count("ema") != 0)
          : stream_folder(folder);
  const std::filesystem::path tokenizer(source.folder);
  model::export_gguf(
      to.string(),
      *source.decoder,
      source.fetch,
      {.type = type,
       .name = (tokenizer.has_filename() ? tokenizer : tokenizer.parent_path()).filename().string(),
       .vocabulary = text::gguf_vocabulary(tokenizer, source.decoder->config().vocab_size)});
  fmt::print("{}\n", to.string());
}

int run_export(const po::variables_map& arguments, comm::Session*) {
  static const Command self = export_command();
  const std::filesystem::path to = required(arguments, "to", self);
  const auto format = arguments["format"].as<std::string>();
  if (format == "gguf") {
    write_gguf(arguments, to);
    return 0;
  }
  if (format != "hf") {
    throw Error(ErrorKind::Config,
                {.where = "cli.export",
                 .what = "--format is not known",
                 .got = "'" + format + "'",
                 .allowed = "hf, gguf"});
  }
  const std::filesystem::path checkpoint = required(arguments, "checkpoint", self);
  refuse_filled_folder(to, arguments.count("force") != 0);
  const at::ScalarType dtype = stored_type(value_or<std::string>(arguments, "dtype", "bf16"));
  export_checkpoint(checkpoint,
                    to,
                    {.dtype = dtype,
                     .merge = arguments.count("merge") != 0,
                     .average = arguments.count("ema") != 0,
                     .base = value_or<std::string>(arguments, "model", "")});
  fmt::print("{}\n", to.string());
  return 0;
}

}  // namespace

Command import_command() {
  return {
      .name = "import",
      .summary = "a GGUF file or a model folder becomes a Hugging Face folder",
      .usage =
          "kamerton import --from FILE.gguf|DIR|FILE.bin --to DIR [--adapter DIR] [--dtype bf16]",
      .description =
          "Dequantises GGUF (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K) and "
          "takes tokenizer and chat template\n"
          "from its metadata. From a folder: converts the dtype, and merges an adapter when one is "
          "given.\n"
          "pytorch_model.bin beside a config.json is read without executing anything that it "
          "holds.\n\nExamples:\n"
          "  kamerton import --from SmolLM2-135M-Instruct.Q4_1.gguf --to "
          "models/SmolLM2-135M-Instruct\n"
          "  kamerton import --from models/SmolLM2-135M-Instruct --adapter runs/quickstart/adapter "
          "--to models/tickets",
      .needs_ranks = false,
      .add_options =
          [](po::options_description& options, po::positional_options_description&) {
            options.add_options()("from", po::value<std::string>(), "what to read")(
                "to", po::value<std::string>(), "the folder to write")(
                "adapter,a", po::value<std::string>(), "PEFT adapter to merge into the weights")(
                "dtype",
                po::value<std::string>()->default_value("bf16"),
                "of the written weights: bf16 or fp32")("force",
                                                        "write into a folder that is not empty");
          },
      .run = run_import};
}

Command export_command() {
  return {.name = "export",
          .summary = "a checkpoint becomes a Hugging Face model, a PEFT adapter or a GGUF file",
          .usage =
              "kamerton export --checkpoint DIR --to DIR [--merge] [--dtype bf16] [--format "
              "gguf]",
          .description =
              "A LoRA run gives a PEFT adapter, or with --merge a whole model; a full run gives a "
              "model. DIR is a run's folder (its\n"
              "newest checkpoint) or one checkpoints/step-N. transformers, PEFT and vLLM open the "
              "result.\n"
              "--format gguf writes one file for llama.cpp, adapters merged, from a checkpoint or "
              "a model folder.\n\nExamples:\n"
              "  kamerton export --checkpoint runs/quickstart --to adapters/tickets\n"
              "  kamerton export --checkpoint runs/quickstart/checkpoints/step-50 --to "
              "models/tickets --merge\n"
              "  kamerton export --model models/tickets --format gguf --dtype q8_0 --to "
              "tickets.gguf",
          .needs_ranks = false,
          .add_options =
              [](po::options_description& options, po::positional_options_description&) {
                options.add_options()("checkpoint",
                                      po::value<std::string>(),
                                      "a run's folder, or one of its checkpoints")(
                    "to", po::value<std::string>(), "the folder (gguf: the file) to write")(
                    "format",
                    po::value<std::string>()->default_value("hf"),
                    "hf (safetensors folder) or gguf")("merge",
                                                       "merge the adapter into the base model")(
                    "ema", "the moving average of the weights (optim.ema_decay)")(
                    "model,m",
                    po::value<std::string>(),
                    "the base model's folder, where it has moved since the run; gguf: what to "
                    "export, without --checkpoint")(
                    "dtype",
                    po::value<std::string>(),
                    "of a whole model's weights: bf16 (default) or fp32; gguf: f16 (default), "
                    "bf16, q8_0 or fp32")("force", "replace what is there");
              },
          .run = run_export};
}

}  // namespace kamerton::cli
