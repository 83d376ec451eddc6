// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/gguf_export.h"

#include <algorithm>
#include <atomic>

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

constexpr int64_t kPiece = int64_t{1} << 24;  // elements converted at once
constexpr char kRopeFactors[] = "rope_freqs.weight";

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

bool ends_with(const std::string& name, std::string_view end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

class Export {
 public:
  Export(const Decoder& decoder, const GgufOptions& options)
      : decoder_(decoder), options_(options), family_(find_family(decoder.config())) {}

  void write(const std::string& path, const FetchParameter& fetch) const {
    storage::GgufMetadata metadata = settings();
    metadata.append(options_.vocabulary);
    std::vector<storage::GgufDeclaration> declarations;
    for (const tensor::ParameterPtr& parameter : parameters()) {
      declarations.push_back({gguf_name(*parameter), stored_type(*parameter), parameter->shape});
    }
    if (has_rope_factors()) {
      declarations.push_back({kRopeFactors, GgmlType::F32, {config().head_dim / 2}});
    }
    storage::GgufWriter writer(path, metadata, declarations);
    for (const tensor::ParameterPtr& parameter : parameters()) {
      const at::Tensor whole = fetch(*parameter).to(at::kCPU, at::kFloat).contiguous();
      append(writer, *parameter, permuted(parameter->name, whole));
    }
    if (has_rope_factors()) {
      append_floats(writer, kRopeFactors, GgmlType::F32, rope_factors());
    }
    writer.finish();
  }

 private:
  const DecoderConfig& config() const { return decoder_.config(); }
  bool has_rope_factors() const { return config().rope.type == "llama3"; }

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
      if (!parameter->adapter) {
        base.push_back(parameter);
      }
    }
    return base;
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
    if (parameter.shape.size() < 2) {
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
    add_rope(out, at);
    return out;
  }

  int64_t context_length() const {
    int64_t length = config().max_positions;
    for (const int64_t window : config().windows) {
      length = window > 0 ? std::min(length, window) : length;
    }
    if (length < config().max_positions) {
      core::log_warning(
          fmt::format("llama.cpp has no sliding window for {}: the context length is written as {} "
                      "instead of {}, up to where both compute the same",
                      family_.gguf,
                      length,
                      config().max_positions));
    }
    return length;
  }

  void add_rope(storage::GgufMetadata& out, const std::string& at) const {
    const RopeConfig& rope = config().rope;
    if (rope.partial_factor != 1.0) {
      refuse("rotary positions on a part of each head cannot be written to GGUF",
             fmt::format("{}", rope.partial_factor),
             "1");
    }
    out.add_count(at + "rope.dimension_count", static_cast<uint32_t>(config().head_dim));
    out.add_real(at + "rope.freq_base", static_cast<float>(rope.theta));
    if (rope.type == "linear" || rope.type == "yarn") {
      out.add_text(at + "rope.scaling.type", rope.type);
      out.add_real(at + "rope.scaling.factor", static_cast<float>(rope.factor));
    }
    if (rope.type == "yarn") {
      if (rope.attention_factor || rope.mscale != 0.0 || rope.mscale_all_dim != 0.0 ||
          rope.beta_fast != 32.0 || rope.beta_slow != 1.0 || !rope.truncate) {
        refuse("yarn with settings of its own cannot be written to GGUF",
               "attention_factor, mscale, beta_fast, beta_slow or truncate",
               "transformers' defaults");
      }
      const int64_t original =
          rope.original_max_positions > 0 ? rope.original_max_positions : config().max_positions;
      out.add_count(at + "rope.scaling.original_context_length", static_cast<uint32_t>(original));
    } else if (rope.type != "default" && rope.type != "linear" && rope.type != "llama3") {
      refuse("rotary scaling that cannot be written to GGUF",
             rope.type,
             "default, linear, yarn, llama3");
    }
  }

  /// What llama.cpp divides the plain frequencies by.
  at::Tensor rope_factors() const {
    double ignored = 1.0;
    DecoderConfig plain = config();
    plain.rope.type = "default";
    const int64_t length = config().max_positions;
    return inverse_frequencies(plain, plain.rope, length, ignored)
        .div(inverse_frequencies(config(), config().rope, length, ignored))
        .to(at::kFloat)
        .contiguous();
  }

  /// Rows of q and k: the rotary pairs of each head side by side (see storage/gguf.h).
  at::Tensor permuted(const std::string& name, const at::Tensor& values) const {
    const bool q = ends_with(name, "q_proj.weight") || ends_with(name, "q_proj.bias");
    const bool k = ends_with(name, "k_proj.weight") || ends_with(name, "k_proj.bias");
    if (!family_.permuted || (!q && !k)) {
      return values;
    }
    const int64_t heads = q ? config().heads : config().kv_heads;
    return values.view({heads, 2, config().head_dim / 2, -1})
        .transpose(1, 2)
        .reshape(values.sizes());
  }

  void append(storage::GgufWriter& writer,
              const tensor::Parameter& parameter,
              const at::Tensor& values) const {
    if (!tensor::all_finite(values)) {
      throw core::Error(core::ErrorKind::Numeric,
                        {.where = "model.gguf",
                         .what = "tensor " + parameter.name + " holds a value that is not finite",
                         .hint = "an earlier checkpoint"});
    }
    append_floats(writer, gguf_name(parameter), stored_type(parameter), values);
  }

  static void append_floats(storage::GgufWriter& writer,
                            const std::string& name,
                            GgmlType type,
                            const at::Tensor& values) {
    const storage::GgmlBlock block = storage::block_of(type);
    const float* data = values.const_data_ptr<float>();
    std::vector<std::byte> bytes;
    for (int64_t done = 0; done < values.numel(); done += kPiece) {
      const int64_t blocks = std::min(kPiece, values.numel() - done) / block.num_elements;
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
