// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/weights.h"

#include <span>
#include <unordered_map>
#include <unordered_set>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"
#include "kamerton/core/random.h"
#include "kamerton/storage/pickled_tensors.h"
#include "kamerton/storage/safetensors.h"
#include "kamerton/tensor/convert.h"
#include "kamerton/tensor/kernels.h"

namespace kamerton::model {
namespace {

constexpr int64_t kPiece = int64_t{1}
                           << 17;  // elements that a thread reads at once: they stay in its cache
constexpr int64_t kDevicePiece = int64_t{1} << 22;  // elements that travel to a device at once

at::ScalarType scalar_type(const storage::TensorEntry& entry) {
  switch (entry.dtype) {
    case storage::DType::F32:
      return at::kFloat;
    case storage::DType::F16:
      return at::kHalf;
    case storage::DType::BF16:
      return at::kBFloat16;
    case storage::DType::F64:
      return at::kDouble;
    default:
      throw core::Error(core::ErrorKind::Data,
                        {.where = "model.weights",
                         .what = "tensor " + entry.name + " is not of a floating type",
                         .got = std::string(storage::name_of(entry.dtype)),
                         .allowed = "F32, F16, BF16, F64"});
  }
}

std::span<std::byte> bytes_of(at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), static_cast<size_t>(tensor.nbytes())};
}

/// Normal(0, initializer_range) for matrices, ones for norms (zeros where they multiply by 1 + w),
/// zeros for biases and for the value
/// head; a pure function of the element.
class RandomSource final : public WeightSource {
 public:
  RandomSource(const ModelOptions& options, const DecoderConfig& config)
      : seed_(static_cast<uint64_t>(options.init_seed)),
        tied_(config.head_from_embedding ? config.names.head + ".weight" : ""),
        embedding_(config.names.embedding + ".weight"),
        range_(config.initializer_range),
        norm_(config.norm == NormKind::RmsPlusOne ? 0.0 : 1.0) {}

  void read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const override {
    if (parameter.name == kValueHead) {
      out.zero_();
      return;
    }
    if (parameter.shape.size() < 2) {
      const bool bias = parameter.name.size() > 5 &&
                        parameter.name.compare(parameter.name.size() - 5, 5, ".bias") == 0;
      out.fill_(bias ? 0.0 : norm_);
      return;
    }
    const core::RandomStream stream(
        seed_, "init." + (parameter.name == tied_ ? embedding_ : parameter.name));
    at::Tensor values = at::empty({out.numel()}, at::kFloat);
    float* data = values.mutable_data_ptr<float>();
    at::parallel_for(0, out.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        data[i] = static_cast<float>(range_ * stream.normal(static_cast<uint64_t>(offset + i)));
      }
    });
    out.copy_(values);
  }

 private:
  uint64_t seed_;
  std::string tied_, embedding_;  // a head that starts as the embedding
  double range_;
  double norm_;
};

/// Model: storage::SafetensorsModel or storage::PickledModel. Bytes are copied, not mapped: a file
/// that is cut short meanwhile must be an error, not a signal.
template <class Model>
class FileSource final : public WeightSource {
 public:
  FileSource(const std::string& path, const Decoder& decoder, const ModelOptions& options)
      : model_(Model::open(path)), path_(path), heads_(options, decoder.config()) {
    match(decoder);
  }

  void read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const override {
    const auto found = names_.find(parameter.name);
    if (found == names_.end()) {
      heads_.read(parameter, offset, out);
      return;
    }
    const std::string& name = found->second;
    const at::ScalarType type = scalar_type(model_.entry(name));
    const bool host = out.is_cpu() && out.is_contiguous();
    const int64_t size = host ? kPiece : kDevicePiece;
    const int64_t pieces = (out.numel() + size - 1) / size;
    const auto read_pieces = [&](int64_t begin, int64_t end) {
      at::Tensor buffer;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t done = i * size;
        at::Tensor piece = out.narrow(0, done, std::min(size, out.numel() - done));
        const auto at = static_cast<uint64_t>(offset + done) * c10::elementSize(type);
        if (!(host ? read_host(name, at, type, buffer, piece)
                   : read_device(name, at, type, piece))) {
          refuse_values(parameter, offset + done, piece);
        }
      }
    };
    host ? at::parallel_for(0, pieces, 1, read_pieces) : read_pieces(0, pieces);
  }

 private:
  /// Fills a piece of memory from the file's bytes at `at`; false when a value is not finite.
  /// `buffer`: memory to use again.
  bool read_host(const std::string& name,
                 uint64_t at,
                 at::ScalarType type,
                 at::Tensor& buffer,
                 at::Tensor& piece) const {
    if (piece.scalar_type() == type) {
      model_.read(name, at, bytes_of(piece));
      return tensor::all_finite(piece);
    }
    if (!buffer.defined()) {
      buffer = at::empty({kPiece}, type);
    }
    at::Tensor stored = buffer.narrow(0, 0, piece.numel());
    model_.read(name, at, bytes_of(stored));
    return tensor::convert_finite(stored, piece);
  }

  bool read_device(const std::string& name,
                   uint64_t at,
                   at::ScalarType type,
                   at::Tensor& piece) const {
    at::Tensor stored = at::empty({piece.numel()}, type);
    model_.read(name, at, bytes_of(stored));
    piece.copy_(stored);
    return tensor::all_finite(piece);
  }

  /// Finds each parameter's tensor, with or without the prefix that bare base models lack, the head
  /// also under transformers' own name for it.
  void match(const Decoder& decoder) {
    const ModuleNames& names = decoder.config().names;
    std::vector<std::string> missing;
    std::unordered_set<std::string> used;
    for (const tensor::ParameterPtr& parameter : decoder.base_parameters()) {
      std::string name = parameter->name;
      if (!model_.contains(name)) {
        if (name.rfind(names.prefix, 0) == 0) {
          name = name.substr(names.prefix.size());
        } else if (name == names.head + ".weight") {
          name = "lm_head.weight";
        }
      }
      if (!model_.contains(name) && decoder.config().head_from_embedding &&
          parameter->name == names.head + ".weight") {
        name = names_.at(names.embedding + ".weight");
      }
      if (!model_.contains(name)) {
        if (!begins_anew(*parameter, decoder.config())) {
          missing.push_back(parameter->name);
        }
        continue;
      }
      check_shape(*parameter, model_.entry(name));
      used.insert(name);
      names_.emplace(parameter->name, name);
    }
    if (!missing.empty()) {
      complain("the checkpoint lacks tensors that config.json asks for", missing);
    }
    check_extra(used, decoder.config());
    check_tied(decoder.config());
  }

  /// A head beside a tied embedding must be a copy of it: transformers would compute with both.
  void check_tied(const DecoderConfig& config) const {
    const auto embedding = names_.find(config.names.embedding + ".weight");
    if (!config.tied_head || embedding == names_.end()) {
      return;
    }
    for (const std::string& head : {config.names.head + ".weight", std::string("lm_head.weight")}) {
      if (head != embedding->second && model_.contains(head) && differs(head, embedding->second)) {
        throw core::Error(core::ErrorKind::Data,
                          {.where = "model.weights",
                           .what = path_ + ": config.json ties the head to the embedding, but " +
                                   head + " holds other values",
                           .hint = "\"tie_word_embeddings\": false in config.json"});
      }
    }
  }

  /// By rows all over the tensors: whole ones may be gigabytes.
  bool differs(const std::string& one, const std::string& other) const {
    const storage::TensorEntry& entry = model_.entry(one);
    if (entry.shape != model_.entry(other).shape || entry.dtype != model_.entry(other).dtype) {
      return true;
    }
    const auto row = static_cast<size_t>(entry.shape.back()) * storage::size_of(entry.dtype);
    const int64_t rows = entry.shape.front();
    std::vector<std::byte> left(row);
    std::vector<std::byte> right(row);
    for (int64_t k = 0; k < std::min<int64_t>(rows, 64); ++k) {
      const auto at = static_cast<uint64_t>(k * rows / std::min<int64_t>(rows, 64)) * row;
      model_.read(one, at, left);
      model_.read(other, at, right);
      if (left != right) {
        return true;
      }
    }
    return false;
  }

  static void check_shape(const tensor::Parameter& parameter, const storage::TensorEntry& entry) {
    if (entry.shape != parameter.shape) {
      throw core::Error(
          core::ErrorKind::Data,
          {.where = "model.weights",
           .what = "tensor " + entry.name + " has another shape than config.json says",
           .got = fmt::format("[{}]", fmt::join(entry.shape, ", ")),
           .allowed = fmt::format("[{}]", fmt::join(parameter.shape, ", "))});
    }
    scalar_type(entry);
  }

  /// Heads that the checkpoint of a language model does not have.
  static bool begins_anew(const tensor::Parameter& parameter, const DecoderConfig& config) {
    return parameter.name == kValueHead ||
           (config.fresh_score && parameter.name == config.names.head + ".weight");
  }

  /// Buffers that older versions saved (masks, rotary tables), and the second name of a tied head.
  static bool is_known_extra(const std::string& name, const DecoderConfig& config) {
    for (const char* end :
         {".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias"}) {
      if (name.ends_with(end)) {
        return true;
      }
    }
    return name.find("rotary_emb.") != std::string::npos ||
           (config.score_head && name == "lm_head.weight") ||
           (config.tied_head &&
            (name == config.names.head + ".weight" || name == "lm_head.weight"));
  }

  void check_extra(const std::unordered_set<std::string>& used, const DecoderConfig& config) const {
    std::vector<std::string> extra;
    for (const std::string& name : model_.names()) {
      if (used.count(name) == 0 && !is_known_extra(name, config)) {
        extra.push_back(name);
      }
    }
    if (!extra.empty()) {
      complain("the checkpoint holds tensors that this architecture does not have", extra);
    }
  }

  [[noreturn]] void complain(const std::string& what, const std::vector<std::string>& names) const {
    const size_t shown = std::min<size_t>(names.size(), 5);
    const std::vector<std::string> first(names.begin(), names.begin() + static_cast<long>(shown));
    throw core::Error(
        core::ErrorKind::Data,
        {.where = "model.weights",
         .what = what,
         .got = fmt::format("{}{} in {}",
                            fmt::join(first, ", "),
                            names.size() > shown ? fmt::format(" and {} more", names.size() - shown)
                                                 : std::string(),
                            path_),
         .hint = "the config.json that belongs to these weights"});
  }

  [[noreturn]] static void refuse_values(const tensor::Parameter& parameter,
                                         int64_t offset,
                                         const at::Tensor& piece) {
    const at::Tensor bad = at::isfinite(piece).logical_not().nonzero();
    throw core::Error(core::ErrorKind::Numeric,
                      {.where = "model.weights",
                       .what = "tensor " + parameter.name + " holds a value that is not finite",
                       .got = fmt::format("{} at element {}",
                                          piece[bad[0].item<int64_t>()].item<float>(),
                                          offset + bad[0].item<int64_t>()),
                       .allowed = "finite numbers",
                       .hint = "another copy of the checkpoint"});
  }

  Model model_;
  std::string path_;
  RandomSource heads_;  // of those that begin anew
  std::unordered_map<std::string, std::string> names_;
};

}  // namespace

std::unique_ptr<WeightSource> open_weights(const ModelOptions& options, const Decoder& decoder) {
  if (options.random_init) {
    return std::make_unique<RandomSource>(options, decoder.config());
  }
  const std::string& place = options.weights.empty() ? options.path : options.weights;
  if (!storage::SafetensorsModel::is_one(place) && storage::PickledModel::is_one(place)) {
    if (!options.allow_pickle) {
      throw core::Error(core::ErrorKind::Config,
                        {.where = "model.weights",
                         .what = "the weights are pickled, which is read only when asked for",
                         .got = place,
                         .allowed = "safetensors",
                         .hint = "model.allow_pickle: true (nothing in the file is executed), or "
                                 "kamerton import --from pytorch_model.bin"});
    }
    return std::make_unique<FileSource<storage::PickledModel>>(place, decoder, options);
  }
  return std::make_unique<FileSource<storage::SafetensorsModel>>(place, decoder, options);
}

}  // namespace kamerton::model
