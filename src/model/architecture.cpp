// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/architecture.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/storage/filesystem.h"

#include "config_reader.h"
#include "families/family.h"
#include "rope.h"

namespace kamerton::model {
namespace {

constexpr uint64_t kConfigBytes = uint64_t{16} << 20;

/// By "architectures", or by "model_type" when that is missing.
const Family& find_family(const ConfigReader& reader) {
  const std::vector<std::string> names = reader.texts("architectures");
  const std::string type = reader.text({"model_type"}, "");
  for (const Family* family : families()) {
    if (names.empty() ? family->model_type == type
                      : family->architecture == names.front() ||
                            scorer_name(std::string(family->architecture)) == names.front()) {
      return *family;
    }
  }
  reader.refuse("architectures",
                "this model architecture is not supported",
                names.empty() ? "model_type " + type : names.front(),
                fmt::format("{}", fmt::join(known_architectures(), ", ")));
}

c10::ScalarType read_dtype(const ConfigReader& reader) {
  std::string name = reader.text({"dtype", "torch_dtype"}, "float32");
  if (name.rfind("torch.", 0) == 0) {
    name = name.substr(6);
  }
  if (name == "float32" || name == "auto") {
    return at::kFloat;
  }
  if (name == "bfloat16") {
    return at::kBFloat16;
  }
  if (name == "float16") {
    return at::kHalf;
  }
  reader.refuse("dtype", "not a type of weights that we read", name, "float32, bfloat16, float16");
}

void read_shape(const ConfigReader& reader, const ConfigKeys& keys, DecoderConfig& c) {
  constexpr int64_t kWide = int64_t{1} << 24;
  const auto size = [&](std::string_view key, int64_t fallback, int64_t limit) {
    return key.empty() ? fallback : reader.size({key}, fallback, limit);
  };
  c.vocab_size = size("vocab_size", c.vocab_size, int64_t{1} << 31);
  c.hidden_size = size(keys.hidden, c.hidden_size, kWide);
  c.intermediate_size = size(keys.intermediate, c.intermediate_size, kWide);
  c.layers = size(keys.layers, c.layers, 1 << 16);
  c.heads = size(keys.heads, c.heads, 1 << 16);
  c.kv_heads = size(keys.kv_heads, c.kv_heads > 0 ? c.kv_heads : c.heads, 1 << 16);
  const bool derived = c.head_dim == 0;
  c.head_dim = size(keys.head_dim, derived ? c.hidden_size / c.heads : c.head_dim, 1 << 16);
  const bool given = !keys.head_dim.empty() && reader.find({keys.head_dim}) != nullptr;
  if (derived && !given && c.hidden_size % c.heads != 0) {
    reader.refuse(keys.heads,
                  fmt::format("does not divide {}", keys.hidden),
                  fmt::format("{} heads of {}", c.heads, c.hidden_size),
                  "a divisor");
  }
  c.max_positions = size(keys.positions, c.max_positions, int64_t{1} << 40);
  c.norm_eps = reader.positive({keys.norm_eps}, c.norm_eps);
  c.initializer_range = reader.number({"initializer_range"}, 0.02);
}

/// Names as in transformers' activations.py.
void read_activation(const ConfigReader& reader, const ConfigKeys& keys, DecoderConfig& c) {
  using tensor::Activation;
  static constexpr std::pair<std::string_view, Activation> kNames[] = {
      {"silu", Activation::Silu},
      {"swish", Activation::Silu},
      {"gelu", Activation::Gelu},
      {"gelu_python", Activation::Gelu},
      {"gelu_new", Activation::GeluTanh},
      {"gelu_fast", Activation::GeluTanh},
      {"gelu_pytorch_tanh", Activation::GeluTanh},
      {"gelu_python_tanh", Activation::GeluTanh}};
  c.activation_name = reader.text({keys.activation}, c.activation_name);
  std::string known;
  for (const auto& [name, activation] : kNames) {
    if (c.activation_name == name) {
      c.activation = activation;
      return;
    }
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  reader.refuse(keys.activation, "activation not supported", c.activation_name, known);
}

void check_shape(const ConfigReader& reader, const ConfigKeys& keys, const DecoderConfig& c) {
  if (c.heads % c.kv_heads != 0) {
    reader.refuse(keys.kv_heads,
                  fmt::format("does not divide {}", keys.heads),
                  fmt::format("{} of {}", c.kv_heads, c.heads),
                  "a divisor");
  }
  if (c.rotary && (c.head_dim < 2 || c.head_dim % 2 != 0)) {
    reader.refuse(
        "head_dim", "rotary embeddings turn pairs", std::to_string(c.head_dim), "an even number");
  }
  if (reader.find({"quantization_config"}) != nullptr) {
    reader.refuse("quantization_config",
                  "quantised checkpoints are not read",
                  "present",
                  "a checkpoint in float32, bfloat16 or float16");
  }
}

/// One label is a score; more are classes, which nothing here computes.
void read_score(const ConfigReader& reader, DecoderConfig& c) {
  const std::vector<std::string> names = reader.texts("architectures");
  if (names.empty() || names.front() != scorer_name(c.architecture) ||
      names.front() == c.architecture) {
    return;
  }
  const core::Json* labels = reader.find({"id2label"});
  const size_t count = labels == nullptr
                           ? static_cast<size_t>(reader.size({"num_labels"}, 2, 1 << 16))
                           : labels->size();
  if (count != 1) {
    reader.refuse("id2label",
                  "a sequence classifier is read when it has one label",
                  std::to_string(count) + " labels",
                  "1");
  }
  c = as_scorer(std::move(c));
  c.fresh_score = false;
}

void read_ids(const ConfigReader& reader, DecoderConfig& c) {
  if (reader.object().contains("bos_token_id")) {
    c.bos_id = reader.token("bos_token_id");
  }
  if (reader.object().contains("eos_token_id")) {
    c.eos_ids = reader.tokens("eos_token_id");
  }
  c.pad_id = reader.token("pad_token_id");
}

}  // namespace

std::string scorer_name(const std::string& architecture) {
  static constexpr std::pair<std::string_view, std::string_view> kOthers[] = {
      {"GPT2LMHeadModel", "GPT2ForSequenceClassification"},
      {"Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"}};
  for (const auto& [name, scorer] : kOthers) {
    if (architecture == name) {
      return std::string(scorer);
    }
  }
  const size_t end = architecture.rfind("ForCausalLM");
  return end == std::string::npos ? architecture
                                  : architecture.substr(0, end) + "ForSequenceClassification";
}

DecoderConfig as_scorer(DecoderConfig config, std::optional<int64_t> pad) {
  if (!config.score_head) {
    if (!config.pad_id) {
      config.pad_id = pad || config.eos_ids.empty() ? pad : config.eos_ids.front();
    }
    config.score_head = config.fresh_score = true;
    config.tied_head = false;
    config.names.head = "score";
  }
  return config;
}

void require_tokens(const DecoderConfig& config, const std::string& where) {
  if (config.score_head) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = where,
                       .what = "the model gives a score, not tokens",
                       .got = scorer_name(config.architecture),
                       .allowed = "a language model",
                       .hint = "objective.method: reward trains it on; objective.rewards: [{kind: "
                               "model}] judges with it"});
  }
}

std::vector<std::string> known_architectures() {
  std::vector<std::string> names;
  for (const Family* family : families()) {
    names.emplace_back(family->architecture);
  }
  return names;
}

DecoderConfig parse_config(std::string_view json_text, const std::string& origin) {
  const core::Json object = core::parse_json(json_text, origin, {.max_bytes = kConfigBytes});
  if (!object.is_object()) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "model.config",
                       .what = origin + " is not a JSON object",
                       .got = object.type_name(),
                       .allowed = "the config.json of a model"});
  }
  const ConfigReader reader(object, origin);
  const Family& family = find_family(reader);
  DecoderConfig config;
  config.architecture = family.architecture;
  config.model_type = family.model_type;
  family.defaults(config);
  read_shape(reader, family.keys, config);
  read_activation(reader, family.keys, config);
  config.tied_head = reader.flag("tie_word_embeddings", config.tied_head);
  config.stored_dtype = read_dtype(reader);
  read_ids(reader, config);
  config.windows.assign(static_cast<size_t>(config.layers), 0);
  config.sliding.assign(static_cast<size_t>(config.layers), false);
  family.read(reader, config);
  check_shape(reader, family.keys, config);
  read_rope(reader, config);
  read_score(reader, config);
  config.source_json = object.dump();
  return config;
}

DecoderConfig read_config(const std::string& directory) {
  const std::filesystem::path folder(directory);
  storage::FileSystem& files = storage::posix_filesystem();
  const std::string path = (folder / "config.json").string();
  DecoderConfig config = parse_config(files.read_file(path, kConfigBytes), path);
  const std::filesystem::path generation = folder / "generation_config.json";
  if (files.file_size(generation).has_value()) {
    const std::string origin = generation.string();
    const core::Json object = core::parse_json(files.read_file(generation, kConfigBytes), origin);
    if (object.is_object()) {
      for (const int64_t id : ConfigReader(object, origin).tokens("eos_token_id")) {
        if (std::find(config.eos_ids.begin(), config.eos_ids.end(), id) == config.eos_ids.end()) {
          config.eos_ids.push_back(id);
        }
      }
    }
  }
  return config;
}

}  // namespace kamerton::model
