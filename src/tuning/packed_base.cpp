// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/packed_base.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

#include "packed_weight.h"

namespace kamerton::tuning {

namespace {

constexpr std::string_view kEnding = ".packed";

std::shared_ptr<PackedRows> make_packed(const std::string& kind, const model::Linear& linear) {
  const std::string name = linear.name + std::string(kEnding);
  if (kind == "nf4") {
    return std::make_shared<Nf4Weight>(name, linear.out_features, linear.in_features);
  }
  return std::make_shared<Int8Weight>(name, linear.out_features, linear.in_features);
}

}  // namespace

void choose_packed(model::Decoder& decoder, const std::string& kind) {
  if (kind == "none") {
    return;
  }
  if (kind != "nf4" && kind != "int8") {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "tuning.packed_base",
                       .what = "no such form of the frozen weights",
                       .got = kind,
                       .allowed = "none, nf4, int8"});
  }
  if (!decoder.device().is_cpu()) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "tuning.packed_base",
                       .what = "packed weights are made wide on the CPU only",
                       .got = "device " + decoder.device().str(),
                       .allowed = "model.device: cpu",
                       .hint = "tuning.quantize: none"});
  }
  for (model::Linear* linear : decoder.linears()) {
    if (linear->weight->trainable) {
      continue;
    }
    const std::shared_ptr<PackedRows> packed = make_packed(kind, *linear);
    linear->packed = packed;
    auto& parameters = decoder.units()[static_cast<size_t>(linear->unit)].parameters;
    std::replace(parameters.begin(), parameters.end(), linear->weight, packed->parameter());
  }
}

at::Tensor pack(const model::Decoder& decoder,
                const tensor::Parameter& packed,
                const ReadBase& base) {
  const std::string module = packed.name.substr(0, packed.name.size() - kEnding.size());
  const model::Linear& linear = *decoder.find_linear(module);
  const at::Tensor stored = base(*linear.weight);
  return static_cast<const PackedRows&>(*linear.packed)
      .packed(linear.transposed ? stored.t() : stored);
}

int64_t packed_bytes(const model::Decoder& decoder) {
  int64_t bytes = 0;
  for (const model::Linear* linear : decoder.linears()) {
    bytes += linear->packed == nullptr ? 0 : linear->packed->bytes();
  }
  return bytes;
}

}  // namespace kamerton::tuning
