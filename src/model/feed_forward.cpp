// SPDX-License-Identifier: Apache-2.0
#include "feed_forward.h"

#include <fmt/format.h>

#include "kamerton/tensor/kernels.h"

#include "declare.h"

namespace kamerton::model {
namespace {

/// down(silu(gate(x)) * up(x))
class Gated final : public FeedForward {
 public:
  Gated(const DecoderConfig& config, const std::string& at, tensor::ParamUnit& unit) {
    const int64_t d = config.hidden_size;
    const int64_t wide = config.intermediate_size;
    gate_ = declare_linear(unit, at + "gate_proj", d, wide, config.mlp_bias);
    up_ = declare_linear(unit, at + "up_proj", d, wide, config.mlp_bias);
    down_ = declare_linear(unit, at + "down_proj", wide, d, config.mlp_bias);
  }

  at::Tensor forward(const at::Tensor& normed_ND, const BlockContext&) const override {
    return down_(tensor::swiglu(gate_(normed_ND), up_(normed_ND)));
  }
  std::vector<Linear*> linears() override { return {&gate_, &up_, &down_}; }

 private:
  Linear gate_, up_, down_;
};

}  // namespace

std::unique_ptr<FeedForward> make_feed_forward(const DecoderConfig& config,
                                               int64_t index,
                                               tensor::ParamUnit& unit) {
  return std::make_unique<Gated>(config, fmt::format("model.layers.{}.mlp.", index), unit);
}

}  // namespace kamerton::model
