// SPDX-License-Identifier: Apache-2.0
#include "feed_forward.h"

#include "kamerton/tensor/kernels.h"

#include "block.h"
#include "declare.h"
#include "experts.h"

namespace kamerton::model {
namespace {

/// down(act(gate(x)) * up(x)), with gate and up apart or in one module; down(act(up(x))) where the
/// family has no gate.
class Dense final : public FeedForward {
 public:
  Dense(const DecoderConfig& config, const std::string& at, tensor::ParamUnit& unit)
      : activation_(config.activation) {
    const ModuleNames& names = config.names;
    const int64_t d = config.hidden_size;
    const int64_t wide = config.intermediate_size;
    const auto add = [&](const std::string& name, int64_t in, int64_t out) {
      return std::make_unique<Linear>(
          declare_linear(unit, at + name, in, out, config.mlp_bias, config.transposed_linear));
    };
    if (!names.gate_up.empty()) {
      gate_up_ = add(names.gate_up, d, 2 * wide);
    } else {
      gate_ = names.gate.empty() ? nullptr : add(names.gate, d, wide);
      up_ = add(names.up, d, wide);
    }
    down_ = add(names.down, wide, d);
  }

  at::Tensor forward(const at::Tensor& normed_ND, const BlockContext&) const override {
    if (gate_up_ != nullptr) {
      return (*down_)(tensor::gated(activation_, (*gate_up_)(normed_ND)));
    }
    if (gate_ != nullptr) {
      return (*down_)(tensor::gated(activation_, (*gate_)(normed_ND), (*up_)(normed_ND)));
    }
    return (*down_)(tensor::activate(activation_, (*up_)(normed_ND)));
  }
  std::vector<Linear*> linears() override {
    std::vector<Linear*> all;
    for (const auto* linear : {&gate_up_, &gate_, &up_, &down_}) {
      if (*linear != nullptr) {
        all.push_back(linear->get());
      }
    }
    return all;
  }

 private:
  tensor::Activation activation_;
  std::unique_ptr<Linear> gate_up_, gate_, up_, down_;
};

}  // namespace

std::unique_ptr<FeedForward> make_feed_forward(const DecoderConfig& config,
                                               int64_t index,
                                               tensor::ParamUnit& unit) {
  const std::string at = layer_prefix(config, index);
  if (config.experts.in_layer(index)) {
    return make_experts(config, index, at, unit);
  }
  return std::make_unique<Dense>(config, at, unit);
}

}  // namespace kamerton::model
