// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/packed_base.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "kamerton/core/error.h"

#include "packed_weight.h"

namespace kamerton::tuning {

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
    const int64_t out = linear->out_features;
    const int64_t in = linear->in_features;
    if (kind == "nf4") {
      linear->packed = std::make_shared<Nf4Weight>(out, in);
    } else {
      linear->packed = std::make_shared<Int8Weight>(out, in);
    }
    auto& parameters = decoder.units()[static_cast<size_t>(linear->unit)].parameters;
    std::erase(parameters, linear->weight);
  }
}

void fill_packed(model::Decoder& decoder, const ReadBase& base) {
  for (model::Linear* linear : decoder.linears()) {
    if (linear->packed != nullptr) {
      const at::Tensor stored = base(*linear->weight);
      std::static_pointer_cast<PackedRows>(linear->packed)
          ->pack(linear->transposed ? stored.t() : stored);
    }
  }
}

int64_t packed_bytes(const model::Decoder& decoder) {
  int64_t bytes = 0;
  for (const model::Linear* linear : decoder.linears()) {
    bytes += linear->packed == nullptr ? 0 : linear->packed->bytes();
  }
  return bytes;
}

}  // namespace kamerton::tuning
