// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/gguf_export.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/tensor/kernels.h"

#include "gguf_names.h"
#include "rope.h"

namespace kamerton::model {
namespace {

using storage::GgmlType;

constexpr int64_t kElementsAtOnce = int64_t{1} << 24;  // elements converted at once
constexpr char kRopeFactors[] = "rope_freqs.weight";
constexpr char kShortFactors[] = "rope_factors_short.weight";
constexpr char kLongFactors[] = "rope_factors_long.weight";

[[noreturn]] void refuse(const std::string& what,
                         const std::string& got,
                         const std::string& allowed = {}) {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "model.gguf", .what = what, .got = got, .allowed = allowed});
}

/// llama.cpp's number for "most tensors are of this type".
uint32_t file_type(GgmlType type) {
  switch (type) {
    case GgmlType::F16:
      return 1;
    case GgmlType::Q8_0:
      return 7;
    case GgmlType::BF16:
      return 32;
    default:
      return 0;
  }
}

/// A tensor of the file: a parameter, or one of each expert, end to end.
struct Stored {
  std::string name;
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;
  std::vector<tensor::ParameterPtr> sources;
};

class Export {
 public:
  Export(const Decoder& decoder, const GgufOptions& options)
      : decoder_(decoder), options_(options), family_(find_family(decoder.config())) {}

  void write(const std::string& path, const FetchParameter& fetch) const {
    storage::GgufMetadata metadata = settings();
    metadata.append(options_.vocabulary);
    const std::vector<Stored> tensors = stored_tensors();
    const auto tables = rope_tables();
    std::vector<storage::GgufDeclaration> declarations;
    for (const Stored& tensor : tensors) {
      declarations.push_back({tensor.name, tensor.type, tensor.shape});
    }
    for (const auto& [name, values] : tables) {
      declarations.push_back({name, GgmlType::F32, {values.numel()}});
    }
    storage::GgufWriter writer(path, metadata, declarations);
    for (const Stored& tensor : tensors) {
      for (const tensor::ParameterPtr& parameter : tensor.sources) {
        const at::Tensor whole = fetch(*parameter).to(at::kCPU, at::kFloat).contiguous();
        append(writer, tensor, *parameter, adapted(parameter->name, whole));
      }
    }
    for (const auto& [name, values] : tables) {
      append_floats(writer, name, GgmlType::F32, values);
    }
    writer.finish();
  }

 private:
  const DecoderConfig& config() const { return decoder_.config(); }

  static const GgufFamily& find_family(const DecoderConfig& config) {
    const GgufFamily* family = gguf_family_of(config.architecture);
    if (family == nullptr) {
      refuse("this architecture cannot be written to GGUF",
             config.architecture,
             gguf_writable_architectures());
    }
    return *family;
  }

  std::vector<tensor::ParameterPtr> parameters() const {
    std::vector<tensor::ParameterPtr> base;
    for (const tensor::ParameterPtr& parameter : decoder_.parameters()) {
      if (!parameter->adapter && parameter->name != kValueHead) {
        base.push_back(parameter);
      }
    }
    return base;
  }

  /// In the order of their first parameters; experts of a layer in order of their numbers.
  std::vector<Stored> stored_tensors() const {
    std::vector<Stored> out;
    std::map<std::string, size_t> known;
    for (const tensor::ParameterPtr& parameter : parameters()) {
      const std::string name = gguf_name(*parameter);
      const auto [at, is_new] = known.emplace(name, out.size());
      if (is_new) {
        out.push_back({name, stored_type(*parameter), parameter->shape, {}});
      }
      out[at->second].sources.push_back(parameter);
    }
    for (Stored& tensor : out) {
      if (tensor.name.find("_exps.") != std::string::npos) {
        tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(tensor.sources.size()));
      }
    }
    return out;
  }

  std::string gguf_name(const tensor::Parameter& parameter) const {
    const auto name = name_to_gguf(family_, parameter.name);
    if (!name) {
      refuse("a tensor has no name in GGUF", parameter.name);
    }
    return *name;
  }

  /// llama.cpp adds and multiplies vectors in fp32 only; a row that is no whole number of blocks
  /// cannot be quantised.
  GgmlType stored_type(const tensor::Parameter& parameter) const {
    const bool router = parameter.name.ends_with(config().experts.router + ".weight");
    if (parameter.shape.size() < 2 || (router && config().experts.count > 0)) {
      return GgmlType::F32;
    }
    const bool whole = parameter.shape.back() % block_of(options_.type).num_elements == 0;
    return whole ? options_.type : GgmlType::F16;
  }

  storage::GgufMetadata settings() const {
    storage::GgufMetadata out;
    const DecoderConfig& c = config();
    const std::string at = std::string(family_.gguf) + ".";
    const auto count = [&](const char* key, int64_t value) {
      out.add_count(at + key, static_cast<uint32_t>(value));
    };
    out.add_text("general.architecture", family_.gguf);
    out.add_text("general.type", "model");
    if (!options_.name.empty()) {
      out.add_text("general.name", options_.name);
    }
    out.add_count("general.file_type", file_type(options_.type));
    out.add_count("general.quantization_version", 2);
    count("vocab_size", c.vocab_size);
    count("block_count", c.layers);
    count("context_length", context_length());
    count("embedding_length", c.hidden_size);
    count("feed_forward_length", c.intermediate_size);
    count("attention.head_count", c.heads);
    count("attention.head_count_kv", c.kv_heads);
    count("attention.key_length", c.head_dim);
    count("attention.value_length", c.head_dim);
    out.add_real(at + "attention.layer_norm_rms_epsilon", static_cast<float>(c.norm_eps));
    add_caps(out, at);
    add_experts(out, at);
    add_rope(out, at);
    return out;
  }

  void add_caps(storage::GgufMetadata& out, const std::string& at) const {
    if (family_.sliding_period > 0) {
      out.add_count(at + "attention.sliding_window", static_cast<uint32_t>(window()));
    }
    if (family_.gguf != "gemma2") {
      if (config().attention_cap > 0 || config().logit_cap > 0) {
        refuse("capped scores or logits have no place in a GGUF file of this family",
               fmt::format("{} and {}", config().attention_cap, config().logit_cap),
               "none");
      }
      return;
    }
    out.add_real(at + "attn_logit_softcapping", static_cast<float>(config().attention_cap));
    out.add_real(at + "final_logit_softcapping", static_cast<float>(config().logit_cap));
  }

  void add_experts(storage::GgufMetadata& out, const std::string& at) const {
    const ExpertsConfig& experts = config().experts;
    if (experts.count == 0) {
      return;
    }
    for (int64_t layer = 0; layer < config().layers; ++layer) {
      if (!experts.in_layer(layer)) {
        refuse("llama.cpp knows this family with experts in every layer only",
               fmt::format("layer {} is dense", layer));
      }
    }
    if (!experts.normalised) {
      refuse("llama.cpp computes this family with norm_topk_prob only", "false", "true");
    }
    out.add_count(at + "expert_count", static_cast<uint32_t>(experts.count));
    out.add_count(at + "expert_used_count", static_cast<uint32_t>(experts.choices));
    out.add_count(at + "expert_feed_forward_length",
                  static_cast<uint32_t>(experts.intermediate_size));
  }

  int64_t window() const {
    return *std::max_element(config().windows.begin(), config().windows.end());
  }

  /// Whether llama.cpp's own pattern of windows is this model's.
  bool slides_as_built_in() const {
    for (size_t layer = 0; layer < config().windows.size(); ++layer) {
      const auto number = static_cast<int64_t>(layer) + 1;
      const bool slides = family_.sliding_period > 0 && number % family_.sliding_period != 0;
      if (config().windows[layer] != (slides ? window() : 0)) {
        return false;
      }
    }
    return true;
  }

  int64_t context_length() const {
    int64_t length = config().max_positions;
    if (slides_as_built_in()) {
      return length;
    }
    for (const int64_t window : config().windows) {
      length = window > 0 ? std::min(length, window) : length;
    }
    if (length < config().max_positions) {
      core::log_warning(fmt::format(
          "llama.cpp has no such sliding windows for {}: the context length is written as {} "
          "instead of {}, up to where both compute the same",
          family_.gguf,
          length,
          config().max_positions));
    }
    return length;
  }

  void add_rope(storage::GgufMetadata& out, const std::string& at) const {
    const RopeConfig& rope = config().rope;
    if (rope.partial_factor != 1.0 && family_.gguf != "phi3") {
      refuse("rotary positions on a part of each head cannot be written to GGUF",
             fmt::format("{}", rope.partial_factor),
             "1");
    }
    check_local_rope();
    out.add_count(at + "rope.dimension_count", static_cast<uint32_t>(rotated_dims(config(), rope)));
    out.add_real(at + "rope.freq_base", static_cast<float>(rope.theta));
    if (rope.type == "linear" || rope.type == "yarn") {
      out.add_text(at + "rope.scaling.type", rope.type);
      out.add_real(at + "rope.scaling.factor", static_cast<float>(rope.factor));
    }
    const int64_t original =
        rope.original_max_positions > 0 ? rope.original_max_positions : config().max_positions;
    if (rope.type == "yarn") {
      check_yarn(rope);
      out.add_count(at + "rope.scaling.original_context_length", static_cast<uint32_t>(original));
    } else if (rope.type == "longrope" && family_.gguf == "phi3") {
      double factor = 1.0;
      inverse_frequencies(config(), rope, config().max_positions, factor);
      out.add_count(at + "rope.scaling.original_context_length", static_cast<uint32_t>(original));
      out.add_real(at + "rope.scaling.attn_factor", static_cast<float>(factor));
    } else if (rope.type != "default" && rope.type != "linear" && rope.type != "llama3") {
      refuse("rotary scaling that cannot be written to GGUF for this family",
             rope.type,
             "default, linear, yarn, llama3; longrope for Phi-3");
    }
  }

  static void check_yarn(const RopeConfig& rope) {
    if (rope.attention_factor || rope.mscale != 0.0 || rope.mscale_all_dim != 0.0 ||
        rope.beta_fast != 32.0 || rope.beta_slow != 1.0 || !rope.truncate) {
      refuse("yarn with settings of its own cannot be written to GGUF",
             "attention_factor, mscale, beta_fast, beta_slow or truncate",
             "transformers' defaults");
    }
  }

  /// llama.cpp turns Gemma 3's sliding layers by the plain base of 10000.
  void check_local_rope() const {
    const auto& local = config().local_rope;
    if (local && (local->type != "default" || local->theta != 10000.0)) {
      refuse("rotary positions of sliding layers that llama.cpp does not have",
             fmt::format("{}, theta {}", local->type, local->theta),
             "default, theta 10000");
    }
  }

  std::vector<std::pair<std::string, at::Tensor>> rope_tables() const {
    const RopeConfig& rope = config().rope;
    if (rope.type == "llama3") {
      return {{kRopeFactors, llama3_factors()}};
    }
    if (rope.type == "longrope") {
      const auto table = [](const std::vector<double>& values) {
        return at::tensor(values, at::kDouble).to(at::kFloat);
      };
      return {{kLongFactors, table(rope.long_factors)}, {kShortFactors, table(rope.short_factors)}};
    }
    return {};
  }

  /// What llama.cpp divides the plain frequencies by.
  at::Tensor llama3_factors() const {
    double ignored = 1.0;
    DecoderConfig plain = config();
    plain.rope.type = "default";
    const int64_t length = config().max_positions;
    return inverse_frequencies(plain, plain.rope, length, ignored)
        .div(inverse_frequencies(config(), config().rope, length, ignored))
        .to(at::kFloat)
        .contiguous();
  }

  /// What llama.cpp's fixed scale of the scores must be multiplied by to be this model's. It
  /// divides by sqrt(head_dim), but in the largest Gemma by sqrt(hidden / heads).
  double score_factor() const {
    const DecoderConfig& c = config();
    const bool largest = (family_.gguf == "gemma2" && c.layers == 46) ||
                         (family_.gguf == "gemma3" && c.layers == 62);
    const int64_t divisor = largest ? c.hidden_size / c.heads : c.head_dim;
    const double fixed = 1.0 / std::sqrt(static_cast<double>(divisor));
    return c.attention_scale == 0.0 ? 1.0 : c.attention_scale / fixed;
  }

  /// As llama.cpp has it: rotary pairs side by side, norms with their 1, the scores' scale in the
  /// last thing that multiplies q.
  at::Tensor adapted(const std::string& name, const at::Tensor& values) const {
    const bool norm = name.ends_with("norm.weight");
    at::Tensor result = norm && family_.norms_plus_one ? values + 1.0 : permuted(name, values);
    const bool normalised = config().qk_norm != QkNorm::None;
    const bool scales_q = normalised
                              ? name.ends_with("q_norm.weight")
                              : name.ends_with("q_proj.weight") || name.ends_with("q_proj.bias");
    const double factor = score_factor();
    return scales_q && factor != 1.0 ? result * factor : result;
  }

  /// Rows of q and k: the rotary pairs of each head side by side (see storage/gguf.h).
  at::Tensor permuted(const std::string& name, const at::Tensor& values) const {
    const bool q = name.ends_with("q_proj.weight") || name.ends_with("q_proj.bias");
    const bool k = name.ends_with("k_proj.weight") || name.ends_with("k_proj.bias");
    if (!family_.permuted || (!q && !k)) {
      return values;
    }
    const int64_t heads = q ? config().heads : config().kv_heads;
    return values.view({heads, 2, config().head_dim / 2, -1})
        .transpose(1, 2)
        .reshape(values.sizes());
  }

  void append(storage::GgufWriter& writer,
              const Stored& tensor,
              const tensor::Parameter& parameter,
              const at::Tensor& values) const {
    if (!tensor::all_finite(values)) {
      throw core::Error(core::ErrorKind::Numeric,
                        {.where = "model.gguf",
                         .what = "tensor " + parameter.name + " holds a value that is not finite",
                         .hint = "an earlier checkpoint"});
    }
    append_floats(writer, tensor.name, tensor.type, values.contiguous());
  }

  static void append_floats(storage::GgufWriter& writer,
                            const std::string& name,
                            GgmlType type,
                            const at::Tensor& values) {
    const storage::GgmlBlock block = storage::block_of(type);
    const float* data = values.const_data_ptr<float>();
    std::vector<std::byte> bytes;
    for (int64_t done = 0; done < values.numel(); done += kElementsAtOnce) {
      const int64_t blocks = std::min(kElementsAtOnce, values.numel() - done) / block.num_elements;
      bytes.resize(static_cast<size_t>(blocks) * block.size);
      std::atomic<bool> fits{true};
      at::parallel_for(0, blocks, 1024, [&](int64_t begin, int64_t end) {
        const auto count = static_cast<size_t>(end - begin);
        if (!storage::quantise(type,
                               std::span(data + done + begin * block.num_elements,
                                         count * static_cast<size_t>(block.num_elements)),
                               std::span(bytes.data() + static_cast<size_t>(begin) * block.size,
                                         count * block.size))) {
          fits.store(false, std::memory_order_relaxed);
        }
      });
      if (!fits.load()) {
        throw core::Error(core::ErrorKind::Numeric,
                          {.where = "model.gguf",
                           .what = "tensor " + name + " holds a value too large for the type",
                           .got = std::string(storage::name_of(type)),
                           .allowed = "at most 65504",
                           .hint = "--dtype bf16"});
      }
      writer.append(name, bytes);
    }
  }

  const Decoder& decoder_;
  const GgufOptions& options_;
  const GgufFamily& family_;
};

}  // namespace

void export_gguf(const std::string& path,
                 const Decoder& decoder,
                 const FetchParameter& fetch,
                 const GgufOptions& options) {
  const at::NoGradGuard no_grad;
  Export(decoder, options).write(path, fetch);
}

}  // namespace kamerton::model
