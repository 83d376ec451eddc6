// SPDX-License-Identifier: Apache-2.0
// kamerton inspect: what is in a model folder, an adapter or a checkpoint.
#include <filesystem>
#include <map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/checkpoint/store.h"
#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/model/architecture.h"
#include "kamerton/storage/gguf.h"
#include "kamerton/storage/safetensors.h"
#include "kamerton/text/bundle.h"
#include "kamerton/tuning/peft_format.h"

#include "command.h"
#include "snapshot_reader.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;

template <class Value>
void row(const std::string& name, const Value& value) {
  fmt::print("{:<18}{}\n", name, value);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void show_tensors(const std::vector<storage::TensorEntry>& entries) {
  for (const storage::TensorEntry& entry : entries) {
    fmt::print(
        "  {:<64}{:<6}{}\n", entry.name, storage::name_of(entry.dtype), shape_text(entry.shape));
  }
}

void inspect_model(const fs::path& folder, bool tensors) {
  const model::DecoderConfig config = model::read_config(folder.string());
  const storage::SafetensorsModel weights = storage::SafetensorsModel::open(folder);
  row("model", config.architecture);
  row("parameters",
      fmt::format("{} ({})",
                  config.parameter_count(),
                  core::format_count(static_cast<double>(config.parameter_count()))));
  row("layers", config.layers);
  row("hidden", fmt::format("{} (feed-forward {})", config.hidden_size, config.intermediate_size));
  row("heads",
      fmt::format(
          "{} of {} ({} for keys and values)", config.heads, config.head_dim, config.kv_heads));
  row("vocabulary",
      fmt::format(
          "{}{}", config.vocab_size, config.tied_head ? ", head tied to the embedding" : ""));
  row("positions", config.context());
  row("rotary", fmt::format("{}, theta {}", config.rope.type, config.rope.theta));
  row("weights",
      fmt::format("{} tensors, {} in {} file(s)",
                  weights.names().size(),
                  core::format_bytes(static_cast<uint64_t>(weights.total_bytes())),
                  weights.files().size()));
  if (fs::exists(folder / "tokenizer.json")) {
    const text::TokenizerBundle bundle = text::load_bundle(folder);
    row("tokenizer",
        fmt::format("{} ids, ends with '{}'", bundle.tokenizer.vocab_size(), bundle.eos_text));
    row("chat template",
        !bundle.chat_template                          ? "none"
        : bundle.chat_template->has_generation_marks() ? "yes, marks what the assistant says"
                                                       : "yes");
  } else {
    row("tokenizer", "none (no tokenizer.json)");
  }
  if (tensors) {
    for (const storage::SafetensorsFile& file : weights.files()) {
      show_tensors(file.entries());
    }
  }
}

void inspect_adapter(const fs::path& folder, bool tensors) {
  const tuning::PeftAdapter adapter = tuning::PeftAdapter::open(folder);
  int64_t elements = 0;
  for (const storage::TensorEntry& entry : adapter.file().entries()) {
    elements += entry.num_elements;
  }
  const tuning::AdapterSpec& spec = adapter.spec();
  row("adapter", spec.method + " (PEFT form)");
  row("base model", adapter.base_model().empty() ? "not named" : adapter.base_model());
  for (const auto& [name, value] : spec.settings->items()) {
    if (!value.is_null() && !(value.is_structured() && value.empty())) {
      row(name.c_str(), value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  row("targets", fmt::format("{}", fmt::join(spec.targets, ", ")));
  if (!spec.modules_to_save.empty()) {
    row("modules to save", fmt::format("{}", fmt::join(spec.modules_to_save, ", ")));
  }
  row("parameters", fmt::format("{} in {} tensors", elements, adapter.file().entries().size()));
  if (tensors) {
    show_tensors(adapter.file().entries());
  }
}

void inspect_gguf(const fs::path& path, bool tensors) {
  const storage::GgufFile file = storage::GgufFile::open(path);
  std::map<std::string, int> types;
  int64_t elements = 0;
  for (const storage::GgufTensor& tensor : file.tensors()) {
    ++types[std::string(storage::name_of(tensor.type))];
    elements += tensor.num_elements;
  }
  row("gguf", fmt::format("version {}", file.version()));
  for (const char* key :
       {"general.architecture", "general.name", "tokenizer.ggml.model", "tokenizer.ggml.pre"}) {
    if (const core::Json* value = core::json_find(file.metadata(), key); value != nullptr) {
      row(std::string(key).substr(std::string(key).find('.') + 1), value->dump());
    }
  }
  row("parameters", fmt::format("{} in {} tensors", elements, file.tensors().size()));
  for (const auto& [type, count] : types) {
    row("  " + type, count);
  }
  if (tensors) {
    for (const storage::GgufTensor& tensor : file.tensors()) {
      fmt::print("  {:<48}{:<6}{}\n",
                 tensor.name,
                 storage::name_of(tensor.type),
                 shape_text(tensor.shape));
    }
  }
}

int run_inspect(const po::variables_map& arguments, comm::Session*) {
  static const Command self = inspect_command();
  const fs::path path = required(arguments, "path", self);
  const bool tensors = arguments.count("tensors") != 0;
  if (!fs::exists(path)) {
    throw core::Error(
        core::ErrorKind::Data,
        {.where = "cli.inspect", .what = "there is nothing at this path", .got = path.string()});
  }
  if (path.extension() == ".gguf") {
    inspect_gguf(path, tensors);
  } else if (fs::exists(path / "adapter_config.json")) {
    inspect_adapter(path, tensors);
  } else if (fs::exists(path / "config.json")) {
    inspect_model(path, tensors);
  } else if (is_checkpoint(path)) {
    inspect_checkpoint(path, tensors, arguments.count("verify") != 0);
  } else {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "cli.inspect",
                       .what = "this is nothing that kamerton knows",
                       .got = path.string(),
                       .allowed = "a model folder (config.json), an adapter (adapter_config.json), "
                                  "a run or checkpoint (manifest.json), a .gguf file"});
  }
  return 0;
}

}  // namespace

Command inspect_command() {
  return {.name = "inspect",
          .summary = "what a model folder, an adapter, a checkpoint or a GGUF file holds",
          .usage = "kamerton inspect PATH [--tensors] [--verify]",
          .description =
              "Examples:\n  kamerton inspect models/SmolLM2-135M-Instruct\n  kamerton inspect "
              "runs/quickstart --verify",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()("path", po::value<std::string>(), "what to look at")(
                    "tensors", "list every tensor")(
                    "verify", "checkpoints: read every file and compare its digest");
                positional.add("path", 1);
              },
          .run = run_inspect};
}

}  // namespace kamerton::cli
