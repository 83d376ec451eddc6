// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/gguf_import.h"

#include <array>
#include <filesystem>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/model/architecture.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/gguf.h"
#include "kamerton/storage/safetensors.h"
#include "kamerton/tensor/kernels.h"

namespace kamerton::model {
namespace {

using core::Json;

/// llama.cpp's names of a layer's tensors ("blk.N.") and Hugging Face's ("model.layers.N.").
constexpr std::array<std::pair<std::string_view, std::string_view>, 13> kLayerNames = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"attn_output.bias", "self_attn.o_proj.bias"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
}};

[[noreturn]] void refuse(const std::string& origin,
                         const std::string& what,
                         const std::string& got,
                         const std::string& allowed = {}) {
  throw core::Error(
      core::ErrorKind::Data,
      {.where = "model.gguf", .what = origin + ": " + what, .got = got, .allowed = allowed});
}

/// The Hugging Face name; empty for tensors that have none there.
std::string target_name(const std::string& name, const std::string& origin) {
  if (name == "token_embd.weight") {
    return "model.embed_tokens.weight";
  }
  if (name == "output_norm.weight") {
    return "model.norm.weight";
  }
  if (name == "output.weight") {
    return "lm_head.weight";
  }
  if (name == "rope_freqs.weight") {
    return "";
  }
  const size_t dot = name.find('.', 4);
  if (name.rfind("blk.", 0) == 0 && dot != std::string::npos) {
    const std::string_view rest = std::string_view(name).substr(dot + 1);
    for (const auto& [from, to] : kLayerNames) {
      if (rest == from) {
        return fmt::format("model.layers.{}.{}", name.substr(4, dot - 4), to);
      }
    }
  }
  refuse(origin, "a tensor that a llama model does not have", name);
}

bool ends_with(const std::string& name, std::string_view end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
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
    files.make_directories(folder);
    std::vector<storage::TensorDeclaration> declarations;
    for (const storage::GgufTensor& tensor : file_.tensors()) {
      const std::string name = target_name(tensor.name, file_.origin());
      if (!name.empty()) {
        declarations.push_back({name,
                                dtype_ == at::kFloat ? storage::DType::F32 : storage::DType::BF16,
                                tensor.shape});
      }
    }
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

  /// config.json's keys from the metadata; parse_config checks them as it would a file.
  void read_config() {
    const std::string architecture =
        core::json_string(meta(), "general.architecture", file_.origin());
    if (architecture != "llama") {
      refuse(file_.origin(), "this GGUF architecture cannot be imported", architecture, "llama");
    }
    const storage::GgufTensor* table = file_.find("token_embd.weight");
    if (table == nullptr || table->shape.size() != 2) {
      refuse(file_.origin(),
             "no usable token_embd.weight",
             table == nullptr ? "nothing" : "shape",
             "a matrix");
    }
    Json c = Json::object();
    c["architectures"] = {"LlamaForCausalLM"};
    c["model_type"] = "llama";
    c["vocab_size"] = table->shape[0];
    c["hidden_size"] = integer("llama.embedding_length");
    c["intermediate_size"] = integer("llama.feed_forward_length");
    c["num_hidden_layers"] = integer("llama.block_count");
    const int64_t heads = integer("llama.attention.head_count");
    c["num_attention_heads"] = heads;
    c["num_key_value_heads"] = integer_or("llama.attention.head_count_kv", heads);
    if (core::json_find(meta(), "llama.attention.key_length") != nullptr) {
      c["head_dim"] = integer("llama.attention.key_length");
    }
    c["max_position_embeddings"] = integer("llama.context_length");
    c["rms_norm_eps"] = rounded(number_or("llama.attention.layer_norm_rms_epsilon", 1e-5));
    c["rope_theta"] = rounded(number_or("llama.rope.freq_base", 10000.0));
    c["attention_bias"] = file_.find("blk.0.attn_q.bias") != nullptr;
    c["tie_word_embeddings"] = file_.find("output.weight") == nullptr;
    c["dtype"] = dtype_ == at::kFloat ? "float32" : "bfloat16";
    add_scaling(c);
    add_token(c, "bos_token_id", "tokenizer.ggml.bos_token_id");
    add_token(c, "eos_token_id", "tokenizer.ggml.eos_token_id");
    add_token(c, "pad_token_id", "tokenizer.ggml.padding_token_id");
    config_ = parse_config(c.dump(), file_.origin());
  }

  /// Metadata are floats: 1e-5 arrives as 9.99999974e-06. The shortest decimal that gives the same
  /// float is meant.
  static double rounded(double value) {
    return std::stod(fmt::format("{}", static_cast<float>(value)));
  }

  void add_scaling(Json& c) const {
    if (core::json_find(meta(), "llama.rope.scaling.type") != nullptr) {
      const std::string type = core::json_string(meta(), "llama.rope.scaling.type", file_.origin());
      if (type == "linear" || type == "yarn") {
        c["rope_scaling"] = {{"rope_type", type},
                             {"factor", number_or("llama.rope.scaling.factor", 1.0)}};
        if (type == "yarn") {
          c["rope_scaling"]["original_max_position_embeddings"] =
              integer_or("llama.rope.scaling.original_context_length", 0);
        }
      } else if (type != "none") {
        refuse(file_.origin(), "rotary scaling not supported", type, "none, linear, yarn");
      }
    }
    if (file_.find("rope_freqs.weight") != nullptr) {
      refuse(file_.origin(),
             "holds a table of rotary factors (Llama 3.1) without their parameters",
             "rope_freqs.weight",
             "a file without it, or the original checkpoint");
    }
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
    const std::string name = target_name(tensor.name, file_.origin());
    if (name.empty()) {
      return;
    }
    at::Tensor values = dequantised(tensor);
    if (!tensor::all_finite(values)) {
      throw core::Error(core::ErrorKind::Numeric,
                        {.where = "model.gguf",
                         .what = "tensor " + tensor.name + " holds a value that is not finite",
                         .got = file_.origin()});
    }
    if (ends_with(name, "q_proj.weight") || ends_with(name, "q_proj.bias")) {
      values = unpermuted(values, config_.heads, tensor);
    } else if (ends_with(name, "k_proj.weight") || ends_with(name, "k_proj.bias")) {
      values = unpermuted(values, config_.kv_heads, tensor);
    }
    const at::Tensor stored = values.to(dtype_).contiguous();
    writer.write(name,
                 std::span(static_cast<const std::byte*>(stored.const_data_ptr()),
                           static_cast<size_t>(stored.nbytes())));
  }

  at::Tensor dequantised(const storage::GgufTensor& tensor) const {
    at::Tensor values = at::empty(tensor.shape, at::kFloat);
    float* data = values.mutable_data_ptr<float>();
    const int64_t width = tensor.row_length();
    at::parallel_for(0, tensor.num_rows(), 64, [&](int64_t begin, int64_t end) {
      file_.read_rows(tensor,
                      begin,
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
      refuse(file_.origin(),
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
