// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/weights.h"

#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"
#include "kamerton/core/random.h"
#include "kamerton/storage/safetensors.h"
#include "kamerton/tensor/kernels.h"

namespace kamerton::model {
namespace {

constexpr int64_t kPiece = int64_t{1} << 22;  // elements converted at once

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

/// Elements of a file as a tensor; copied first when the file does not align them.
at::Tensor elements(const std::byte* bytes, int64_t count, at::ScalarType type) {
  const size_t width = c10::elementSize(type);
  if (reinterpret_cast<uintptr_t>(bytes) % width == 0) {
    return at::from_blob(const_cast<std::byte*>(bytes), {count}, type);
  }
  at::Tensor copy = at::empty({count}, type);
  std::memcpy(copy.mutable_data_ptr(), bytes, static_cast<size_t>(count) * width);
  return copy;
}

class FileSource final : public WeightSource {
 public:
  FileSource(const std::string& path, const Decoder& decoder)
      : model_(storage::SafetensorsModel::open(path)), path_(path) {
    match(decoder);
  }

  void read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const override {
    const std::string& name = names_.at(parameter.name);
    const storage::TensorEntry& entry = model_.entry(name);
    const at::ScalarType type = scalar_type(entry);
    const auto width = static_cast<int64_t>(c10::elementSize(type));
    const std::byte* bytes = model_.bytes(name).data() + offset * width;
    for (int64_t done = 0; done < out.numel(); done += kPiece) {
      const int64_t n = std::min(kPiece, out.numel() - done);
      at::Tensor piece = out.narrow(0, done, n);
      piece.copy_(elements(bytes + done * width, n, type));
      if (!tensor::all_finite(piece)) {
        refuse_values(parameter, offset + done, piece);
      }
    }
  }

 private:
  /// Finds each parameter's tensor, with or without the prefix that bare base models lack.
  void match(const Decoder& decoder) {
    std::vector<std::string> missing;
    std::unordered_set<std::string> used;
    for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
      if (parameter->adapter) {
        continue;
      }
      std::string name = parameter->name;
      if (!model_.contains(name) && name.rfind("model.", 0) == 0) {
        name = name.substr(6);
      }
      if (!model_.contains(name)) {
        missing.push_back(parameter->name);
        continue;
      }
      check_shape(*parameter, model_.entry(name));
      used.insert(name);
      names_.emplace(parameter->name, name);
    }
    if (!missing.empty()) {
      complain("the checkpoint lacks tensors that config.json asks for", missing);
    }
    check_extra(used, decoder.config().tied_head);
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

  void check_extra(const std::unordered_set<std::string>& used, bool tied) const {
    std::vector<std::string> extra;
    for (const std::string& name : model_.names()) {
      // Buffers that older versions saved, and the second name of a tied head.
      const bool buffer = name.find("rotary_emb.") != std::string::npos ||
                          name.find("attn.masked_bias") != std::string::npos ||
                          (tied && name == "lm_head.weight");
      if (!buffer && used.count(name) == 0) {
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

  storage::SafetensorsModel model_;
  std::string path_;
  std::unordered_map<std::string, std::string> names_;
};

/// Normal(0, initializer_range) for matrices, ones for norms, zeros for biases; a pure function of
/// the element.
class RandomSource final : public WeightSource {
 public:
  RandomSource(const ModelOptions& options, double range)
      : seed_(static_cast<uint64_t>(options.init_seed)), range_(range) {}

  void read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const override {
    if (parameter.shape.size() < 2) {
      const bool bias = parameter.name.size() > 5 &&
                        parameter.name.compare(parameter.name.size() - 5, 5, ".bias") == 0;
      out.fill_(bias ? 0.0 : 1.0);
      return;
    }
    const core::RandomStream stream(seed_, "init." + parameter.name);
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
  double range_;
};

}  // namespace

std::unique_ptr<WeightSource> open_weights(const ModelOptions& options, const Decoder& decoder) {
  if (options.random_init) {
    return std::make_unique<RandomSource>(options, decoder.config().initializer_range);
  }
  return std::make_unique<FileSource>(options.path, decoder);
}

}  // namespace kamerton::model
