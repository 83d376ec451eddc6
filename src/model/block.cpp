// SPDX-License-Identifier: Apache-2.0
#include "block.h"

#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/tensor/kernels.h"
#include "kamerton/tensor/linear.h"

#include "attention_cache.h"

namespace kamerton::model {
namespace {

Linear declare_linear(
    tensor::ParamUnit& unit, const std::string& name, int64_t in, int64_t out, bool bias) {
  Linear linear;
  linear.name = name;
  linear.unit = unit.index;
  linear.in_features = in;
  linear.out_features = out;
  linear.weight = declare(unit, name + ".weight", {out, in});
  if (bias) {
    linear.bias = declare(unit, name + ".bias", {out});
  }
  return linear;
}

}  // namespace

tensor::ParameterPtr declare(tensor::ParamUnit& unit,
                             const std::string& name,
                             std::vector<int64_t> shape) {
  auto parameter = std::make_shared<tensor::Parameter>();
  parameter->name = name;
  parameter->shape = std::move(shape);
  unit.parameters.push_back(parameter);
  return parameter;
}

at::Tensor Linear::operator()(const at::Tensor& x_NI) const {
  at::Tensor out = tensor::linear(x_NI, weight, bias);
  return extension == nullptr ? out : extension->apply(*this, x_NI, out);
}

Block::Block(const DecoderConfig& config, int64_t index, tensor::ParamUnit& unit)
    : index_(index), eps_(config.norm_eps) {
  const std::string at = fmt::format("model.layers.{}.", index);
  const std::string attn = at + "self_attn.";
  const int64_t d = config.hidden_size;
  shape_ = {.heads = config.heads,
            .kv_heads = config.kv_heads,
            .head_dim = config.head_dim,
            .scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim)),
            .window = config.windows[static_cast<size_t>(index)]};
  input_norm_ = declare(unit, at + "input_layernorm.weight", {d});
  q_ = declare_linear(unit, attn + "q_proj", d, config.query_size(), config.qkv_bias);
  k_ = declare_linear(unit, attn + "k_proj", d, config.kv_size(), config.qkv_bias);
  v_ = declare_linear(unit, attn + "v_proj", d, config.kv_size(), config.qkv_bias);
  if (config.qk_norm) {
    q_norm_ = declare(unit, attn + "q_norm.weight", {config.head_dim});
    k_norm_ = declare(unit, attn + "k_norm.weight", {config.head_dim});
  }
  o_ = declare_linear(unit, attn + "o_proj", config.query_size(), d, config.output_bias);
  post_norm_ = declare(unit, at + "post_attention_layernorm.weight", {d});
  const int64_t wide = config.intermediate_size;
  gate_ = declare_linear(unit, at + "mlp.gate_proj", d, wide, config.mlp_bias);
  up_ = declare_linear(unit, at + "mlp.up_proj", d, wide, config.mlp_bias);
  down_ = declare_linear(unit, at + "mlp.down_proj", wide, d, config.mlp_bias);
}

std::vector<Linear*> Block::linears() {
  return {&q_, &k_, &v_, &o_, &gate_, &up_, &down_};
}

at::Tensor Block::attention(const at::Tensor& normed_ND, const BlockContext& context) const {
  at::Tensor q = q_(normed_ND);
  at::Tensor k = k_(normed_ND);
  const at::Tensor v = v_(normed_ND);
  if (q_norm_ != nullptr) {
    const auto per_head = [&](const at::Tensor& x, const tensor::ParameterPtr& weight) {
      return tensor::rms_norm(x.view({-1, shape_.head_dim}), weight, eps_).view(x.sizes());
    };
    q = per_head(q, q_norm_);
    k = per_head(k, k_norm_);
  }
  if (context.cache != nullptr) {
    return o_(context.cache->attend(index_, q, k, v, context.rotary, shape_, context.offsets));
  }
  return o_(tensor::attend(q, k, v, context.rotary, shape_, context.offsets));
}

at::Tensor Block::forward(const at::Tensor& x_ND,
                          const BlockContext& context,
                          const tensor::ParameterPtr& final_norm) const {
  const at::Tensor mixed = attention(tensor::rms_norm(x_ND, input_norm_, eps_), context);
  const auto [sum, normed] = tensor::add_rms_norm(x_ND, mixed, post_norm_, eps_);
  const at::Tensor out = down_(tensor::swiglu(gate_(normed), up_(normed)));
  if (final_norm == nullptr) {
    return sum + out;
  }
  return std::get<1>(tensor::add_rms_norm(sum, out, final_norm, eps_));
}

}  // namespace kamerton::model
