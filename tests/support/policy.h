// SPDX-License-Identifier: Apache-2.0
// The models of the preference fixtures.
#pragma once

#include <cmath>
#include <memory>
#include <optional>

#include "kamerton/model/decoder.h"
#include "kamerton/model/weights.h"
#include "kamerton/tuning/adapter.h"
#include "kamerton/tuning/peft_format.h"

#include "support/oracle.h"

namespace kamerton::test {

inline std::unique_ptr<model::Decoder> make_decoder(model::ModelOptions options = {}) {
  options.path = oracle_path("models/stories260K").string();
  options.dtype = "fp32";
  return std::make_unique<model::Decoder>(model::read_config(options.path), options);
}

/// stories260K with the trained adapter; its weights are attached, not merged.
struct Adapted {
  Adapted() : decoder(make_decoder()) {
    const auto adapter = tuning::PeftAdapter::open(oracle_path("fixtures/training/lora_final"));
    lora = tuning::Adapter::attach(*decoder, adapter.spec());
    decoder->load_whole();
    for (const tuning::AdapterEntry& entry : lora->entries()) {
      adapter.read(*entry.parameter, 0, entry.parameter->value.detach().view({-1}));
    }
  }
  std::unique_ptr<model::Decoder> decoder;
  std::optional<tuning::Adapter> lora;
};

/// The policy of the fixtures: the adapter merged, every weight trained.
inline std::unique_ptr<model::Decoder> make_policy() {
  Adapted adapted;
  adapted.lora->merge();
  for (const auto& parameter : adapted.decoder->parameters()) {
    if (!parameter->adapter) {
      parameter->trainable = true;
      parameter->value.set_requires_grad(true);
    }
  }
  return std::move(adapted.decoder);
}

inline double gradient_norm(const model::Decoder& decoder) {
  double squares = 0;
  for (const auto& parameter : decoder.parameters()) {
    if (parameter->value.requires_grad()) {
      squares += parameter->accumulator().to(at::kDouble).square().sum().item<double>();
    }
  }
  return std::sqrt(squares);
}

inline void forget_gradients(const model::Decoder& decoder) {
  for (const auto& parameter : decoder.parameters()) {
    if (parameter->value.requires_grad()) {
      parameter->accumulator().zero_();
    }
  }
}

}  // namespace kamerton::test
