// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/gguf_import.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numbers>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/model/architecture.h"
#include "kamerton/model/decoder.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/gguf.h"
#include "kamerton/storage/safetensors.h"
#include "kamerton/tensor/kernels.h"

#include "gguf_names.h"

namespace kamerton::model {
namespace {

using core::Json;

[[noreturn]] void refuse_import(const std::string& origin,
                                const std::string& what,
                                const std::string& got,
                                const std::string& allowed = {}) {
  throw core::Error(
      core::ErrorKind::Data,
      {.where = "model.gguf", .what = origin + ": " + what, .got = got, .allowed = allowed});
}

class Import {
 public:
  Import(const std::string& path, at::ScalarType dtype)
      : file_(storage::GgufFile::open(path)), dtype_(dtype) {
    read_config();
  }

  void write(const std::string& directory, const std::map<std::string, std::string>& extra) {
    storage::FileSystem& files = storage::posix_filesystem();
    const std::filesystem::path folder(directory);
    const std::vector<storage::TensorDeclaration> declarations = declare();
    files.make_directories(folder);
    storage::SafetensorsModelWriter writer(folder, declarations);
    for (const storage::GgufTensor& tensor : file_.tensors()) {
      convert(tensor, writer);
    }
    for (const auto& [name, content] : extra) {
      storage::write_file_atomic(files, folder / name, content);
    }
    storage::write_file_atomic(files, folder / "generation_config.json", generation_json());
    storage::write_file_atomic(files, folder / "config.json", config_to_json(config_, dtype_));
    writer.finish();
  }

 private:
  const Json& meta() const { return file_.metadata(); }

  int64_t integer(const std::string& key) const {
    return core::json_int(meta(), key, file_.origin());
  }
  int64_t integer_or(const std::string& key, int64_t fallback) const {
    return core::json_find(meta(), key) == nullptr ? fallback : integer(key);
  }
  double number_or(const std::string& key, double fallback) const {
    return core::json_find(meta(), key) == nullptr ? fallback
                                                   : core::json_number(meta(), key, file_.origin());
  }

  /// A setting of this architecture: "llama.block_count".
  std::string key(const char* name) const { return std::string(family_->gguf) + "." + name; }

  /// A parameter in a tensor of the file: all of it, or one expert's rows.
  struct Part {
    std::string name;
    std::vector<int64_t> shape;
    int64_t first_row = 0;
  };

  std::vector<Part> parts_of(const storage::GgufTensor& tensor) const {
    const auto target = name_from_gguf(*family_, tensor.name);
    if (!target) {
      refuse_import(file_.origin(),
                    "a tensor that a " + std::string(family_->gguf) + " model does not have",
                    tensor.name);
    }
    if (target->empty()) {
      return {};
    }
    const size_t star = target->find('*');
    if (star == std::string::npos) {
      return {{*target, tensor.shape, 0}};
    }
    const int64_t experts = config_.experts.count;
    if (tensor.shape.size() != 3 || tensor.shape[0] != experts) {
      refuse_import(file_.origin(),
                    "tensor " + tensor.name + " does not hold one matrix an expert",
                    fmt::format("shape [{}]", fmt::join(tensor.shape, ", ")),
                    fmt::format("[{}, rows, columns]", experts));
    }
    std::vector<Part> parts;
    for (int64_t expert = 0; expert < experts; ++expert) {
      std::string name = *target;
      name.replace(star, 1, std::to_string(expert));
      parts.push_back({name, {tensor.shape[1], tensor.shape[2]}, expert * tensor.shape[1]});
    }
    return parts;
  }

  /// Every parameter of the model that the metadata describe, once, in the file's order.
  std::vector<storage::TensorDeclaration> declare() const {
    ModelOptions shapes_only;
    shapes_only.device = "cpu";
    const Decoder decoder(config_, shapes_only);
    std::map<std::string, std::string> source;  // of each parameter
    std::vector<storage::TensorDeclaration> declarations;
    for (const storage::GgufTensor& tensor : file_.tensors()) {
      for (const Part& part : parts_of(tensor)) {
        const tensor::ParameterPtr parameter = decoder.find_parameter(part.name);
        if (!parameter) {
          refuse_import(file_.origin(), "a tensor beyond the model's", tensor.name);
        }
        if (part.shape != parameter->shape) {
          refuse_import(file_.origin(),
                        "tensor " + tensor.name + " has another shape than the metadata say",
                        fmt::format("[{}]", fmt::join(part.shape, ", ")),
                        fmt::format("[{}]", fmt::join(parameter->shape, ", ")));
        }
        if (const auto [twin, fresh] = source.emplace(part.name, tensor.name); !fresh) {
          refuse_import(file_.origin(),
                        "two tensors for one parameter",
                        twin->second + " and " + tensor.name);
        }
        declarations.push_back({part.name,
                                dtype_ == at::kFloat ? storage::DType::F32 : storage::DType::BF16,
                                part.shape});
      }
    }
    for (const tensor::ParameterPtr& parameter : decoder.base_parameters()) {
      if (source.count(parameter->name) == 0) {
        refuse_import(file_.origin(), "no tensor for a parameter of the model", parameter->name);
      }
    }
    return declarations;
  }

  /// config.json's keys from the metadata; parse_config checks them as it would a file.
  void read_config() {
    const std::string architecture =
        core::json_string(meta(), "general.architecture", file_.origin());
    const bool experts = integer_or(architecture + ".expert_count", 0) > 0;
    family_ = gguf_family(architecture, experts);
    if (family_ == nullptr) {
      refuse_import(file_.origin(),
                    "this GGUF architecture cannot be imported",
                    architecture + (experts ? " with experts" : ""),
                    gguf_families());
    }
    const storage::GgufTensor* table = file_.find("token_embd.weight");
    if (table == nullptr || table->shape.size() != 2) {
      refuse_import(file_.origin(),
                    "no usable token_embd.weight",
                    table == nullptr ? "nothing" : "shape",
                    "a matrix");
    }
    Json c = Json::object();
    c["architectures"] = {family_->architecture};
    c["model_type"] = family_->model_type;
    c["vocab_size"] = table->shape[0];
    add_sizes(c);
    c["rms_norm_eps"] = rounded(number_or(key("attention.layer_norm_rms_epsilon"), 1e-5));
    c["rope_theta"] = rounded(number_or(key("rope.freq_base"), 10000.0));
    c["tie_word_embeddings"] = file_.find("output.weight") == nullptr;
    c["dtype"] = dtype_ == at::kFloat ? "float32" : "bfloat16";
    add_family(c);
    add_scaling(c);
    add_token(c, "bos_token_id", "tokenizer.ggml.bos_token_id");
    add_token(c, "eos_token_id", "tokenizer.ggml.eos_token_id");
    add_token(c, "pad_token_id", "tokenizer.ggml.padding_token_id");
    config_ = parse_config(c.dump(), file_.origin());
  }

  void add_sizes(Json& c) const {
    c["hidden_size"] = integer(key("embedding_length"));
    c["intermediate_size"] = integer(key("feed_forward_length"));
    c["num_hidden_layers"] = integer(key("block_count"));
    const int64_t heads = integer(key("attention.head_count"));
    c["num_attention_heads"] = heads;
    c["num_key_value_heads"] = integer_or(key("attention.head_count_kv"), heads);
    if (core::json_find(meta(), key("attention.key_length")) != nullptr) {
      c["head_dim"] = integer(key("attention.key_length"));
    }
    c["max_position_embeddings"] = integer(key("context_length"));
  }

  /// What only one family has. llama.cpp fixes the rest in its code, and so does transformers by
  /// its defaults.
  void add_family(Json& c) const {
    if (family_->experts) {
      add_experts(c);
    } else if (family_->gguf == "llama" || family_->gguf == "qwen3") {
      c["attention_bias"] = file_.find("blk.0.attn_q.bias") != nullptr;
      c["mlp_bias"] = file_.find("blk.0.ffn_gate.bias") != nullptr;
    } else if (family_->gguf == "gemma3") {
      add_score_scale(c, 62);
      c["sliding_window"] = integer_or(key("attention.sliding_window"), 4096);
      c["rope_local_base_freq"] = 10000.0;
      c["hidden_activation"] = "gelu_pytorch_tanh";
    } else if (family_->gguf == "gemma2") {
      add_score_scale(c, 46);
      c["attn_logit_softcapping"] = rounded(number_or(key("attn_logit_softcapping"), 50.0));
      c["final_logit_softcapping"] = rounded(number_or(key("final_logit_softcapping"), 30.0));
      c["sliding_window"] = integer_or(key("attention.sliding_window"), 4096);
      c["hidden_activation"] = "gelu_pytorch_tanh";
    } else if (family_->gguf == "phi3") {
      const int64_t window = integer_or(key("attention.sliding_window"), 0);
      c["sliding_window"] = window > 0 ? Json(window) : Json(nullptr);
    }
  }

  /// llama.cpp computes these families with experts in every layer and chosen weights that sum
  /// to 1.
  void add_experts(Json& c) const {
    c["num_local_experts"] = c["num_experts"] = integer(key("expert_count"));
    c["num_experts_per_tok"] = integer(key("expert_used_count"));
    if (family_->gguf == "qwen3moe") {
      c["moe_intermediate_size"] = integer(key("expert_feed_forward_length"));
      c["norm_topk_prob"] = true;
      c["decoder_sparse_step"] = 1;
    }
  }

  /// llama.cpp's rule: head_dim, but hidden / heads in the largest of a family.
  void add_score_scale(Json& c, int64_t layers_of_largest) const {
    const int64_t heads = c["num_attention_heads"].get<int64_t>();
    const bool largest = c["num_hidden_layers"] == layers_of_largest;
    c["query_pre_attn_scalar"] = largest
                                     ? c["hidden_size"].get<int64_t>() / std::max<int64_t>(heads, 1)
                                     : integer(key("attention.key_length"));
  }

  /// Metadata are floats: 1e-5 arrives as 9.99999974e-06. The shortest decimal that gives the same
  /// float is meant.
  static double rounded(double value) {
    return std::stod(fmt::format("{}", static_cast<float>(value)));
  }

  void add_scaling(Json& c) const {
    const std::string type_key = key("rope.scaling.type");
    const int64_t original = integer_or(key("rope.scaling.original_context_length"), 0);
    if (family_->gguf == "phi3") {
      add_longrope(c, original);
    } else if (core::json_find(meta(), type_key) != nullptr) {
      const std::string type = core::json_string(meta(), type_key, file_.origin());
      if (type == "linear" || type == "yarn") {
        c["rope_scaling"] = {{"rope_type", type},
                             {"factor", rounded(number_or(key("rope.scaling.factor"), 1.0))}};
        if (type == "yarn") {
          c["rope_scaling"]["original_max_position_embeddings"] = original;
        }
      } else if (type != "none") {
        refuse_import(file_.origin(), "rotary scaling not supported", type, "none, linear, yarn");
      }
    }
    if (file_.find("rope_freqs.weight") != nullptr) {
      add_llama3(c);
    }
  }

  /// Phi-3: a share of each head is rotated; long files have a factor for each frequency.
  void add_longrope(Json& c, int64_t original) const {
    const int64_t head = c["hidden_size"].get<int64_t>() /
                         std::max<int64_t>(c["num_attention_heads"].get<int64_t>(), 1);
    const int64_t rotated = integer_or(key("rope.dimension_count"), head);
    c["partial_rotary_factor"] =
        static_cast<double>(rotated) / static_cast<double>(std::max<int64_t>(head, 1));
    c["original_max_position_embeddings"] =
        original > 0 ? original : c["max_position_embeddings"].get<int64_t>();
    if (file_.find("rope_factors_long.weight") != nullptr) {
      c["rope_scaling"] = {{"rope_type", "longrope"},
                           {"long_factor", factors("rope_factors_long.weight")},
                           {"short_factor", factors("rope_factors_short.weight")}};
    }
  }

  std::vector<double> factors(const char* name) const {
    const storage::GgufTensor* tensor = file_.find(name);
    if (tensor == nullptr || tensor->shape.size() != 1 || tensor->num_elements < 1 ||
        tensor->num_elements > 65536) {
      refuse_import(file_.origin(), "no usable table of rotary factors", name, "a vector");
    }
    std::vector<float> values(static_cast<size_t>(tensor->num_elements));
    file_.read_rows(*tensor, 0, 1, values);
    std::vector<double> out;
    for (const float value : values) {
      out.push_back(rounded(value));
    }
    return out;
  }

  /// The file holds what the frequencies are divided by, not the settings that led there: they are
  /// found among those in use (wavelengths from original / 4 to original / 1).
  void add_llama3(Json& c) const {
    const std::vector<double> table = factors("rope_freqs.weight");
    const double factor = *std::max_element(table.begin(), table.end());
    const double theta = c["rope_theta"].get<double>();
    for (int64_t original = 16; original <= (int64_t{1} << 20); original *= 2) {
      if (matches_llama3(table, theta, factor, static_cast<double>(original))) {
        c["rope_scaling"] = {{"rope_type", "llama3"},
                             {"factor", factor},
                             {"low_freq_factor", 1.0},
                             {"high_freq_factor", 4.0},
                             {"original_max_position_embeddings", original}};
        return;
      }
    }
    refuse_import(file_.origin(),
                  "holds a table of rotary factors that no usual Llama 3 setting gives",
                  "rope_freqs.weight",
                  "the original checkpoint");
  }

  static bool matches_llama3(const std::vector<double>& table,
                             double theta,
                             double factor,
                             double original) {
    for (size_t i = 0; i < table.size(); ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(table.size());
      const double turns = original / (2.0 * std::numbers::pi * std::pow(theta, share));
      const double smooth = std::clamp((turns - 1.0) / 3.0, 0.0, 1.0);
      const double expected = 1.0 / ((1.0 - smooth) / factor + smooth);
      if (std::fabs(table[i] - expected) > 1e-4 * expected) {
        return false;
      }
    }
    return true;
  }

  void add_token(Json& c, const char* key, const char* source) const {
    c[key] = core::json_find(meta(), source) == nullptr ? Json(nullptr) : Json(integer(source));
  }

  std::string generation_json() const {
    Json out = Json::object();
    if (config_.bos_id) {
      out["bos_token_id"] = *config_.bos_id;
    }
    if (!config_.eos_ids.empty()) {
      out["eos_token_id"] = config_.eos_ids.front();
    }
    if (config_.pad_id) {
      out["pad_token_id"] = *config_.pad_id;
    }
    return out.dump(2) + "\n";
  }

  void convert(const storage::GgufTensor& tensor, storage::SafetensorsModelWriter& writer) const {
    for (const Part& part : parts_of(tensor)) {
      at::Tensor values = dequantised(tensor, part);
      if (!tensor::all_finite(values)) {
        throw core::Error(core::ErrorKind::Numeric,
                          {.where = "model.gguf",
                           .what = "tensor " + tensor.name + " holds a value that is not finite",
                           .got = file_.origin()});
      }
      store(part.name, as_ours(part.name, values, tensor), writer);
    }
  }

  at::Tensor as_ours(const std::string& name,
                     const at::Tensor& values,
                     const storage::GgufTensor& tensor) const {
    if (family_->norms_plus_one && name.ends_with("norm.weight")) {
      return values - 1.0;
    }
    if (family_->permuted && (name.ends_with("q_proj.weight") || name.ends_with("q_proj.bias"))) {
      return unpermuted(values, config_.heads, tensor);
    }
    if (family_->permuted && (name.ends_with("k_proj.weight") || name.ends_with("k_proj.bias"))) {
      return unpermuted(values, config_.kv_heads, tensor);
    }
    return values;
  }

  void store(const std::string& name,
             const at::Tensor& values,
             storage::SafetensorsModelWriter& writer) const {
    const at::Tensor stored = values.to(dtype_).contiguous();
    writer.write(name,
                 std::span(static_cast<const std::byte*>(stored.const_data_ptr()),
                           static_cast<size_t>(stored.nbytes())));
  }

  at::Tensor dequantised(const storage::GgufTensor& tensor, const Part& part) const {
    at::Tensor values = at::empty(part.shape, at::kFloat);
    float* data = values.mutable_data_ptr<float>();
    const int64_t width = std::max<int64_t>(tensor.row_length(), 1);
    at::parallel_for(0, values.numel() / width, 64, [&](int64_t begin, int64_t end) {
      file_.read_rows(tensor,
                      part.first_row + begin,
                      end - begin,
                      std::span(data + begin * width, static_cast<size_t>((end - begin) * width)));
    });
    return values;
  }

  /// llama.cpp interleaves the rotary pairs of each head: file row 2 i + j is row j d/2 + i of
  /// Hugging Face's.
  at::Tensor unpermuted(const at::Tensor& values,
                        int64_t heads,
                        const storage::GgufTensor& tensor) const {
    if (values.size(0) != heads * config_.head_dim) {
      refuse_import(file_.origin(),
                    "tensor " + tensor.name + " does not have head_dim rows a head",
                    std::to_string(values.size(0)),
                    std::to_string(heads * config_.head_dim));
    }
    return values.view({heads, config_.head_dim / 2, 2, -1})
        .transpose(1, 2)
        .reshape(values.sizes());
  }

  storage::GgufFile file_;
  at::ScalarType dtype_;
  const GgufFamily* family_ = nullptr;
  DecoderConfig config_;
};

}  // namespace

void import_gguf(const std::string& gguf_path,
                 const std::string& directory,
                 at::ScalarType dtype,
                 const std::map<std::string, std::string>& extra_files) {
  const at::NoGradGuard no_grad;
  Import(gguf_path, dtype).write(directory, extra_files);
}

}  // namespace kamerton::model
