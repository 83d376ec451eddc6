// SPDX-License-Identifier: Apache-2.0
#include "block.h"

#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/tensor/kernels.h"

#include "attention_cache.h"
#include "declare.h"

namespace kamerton::model {

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
  feed_forward_ = make_feed_forward(config, index, unit);
}

std::vector<Linear*> Block::linears() {
  std::vector<Linear*> all = {&q_, &k_, &v_, &o_};
  const std::vector<Linear*> more = feed_forward_->linears();
  all.insert(all.end(), more.begin(), more.end());
  return all;
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
  const at::Tensor out = feed_forward_->forward(normed, context);
  if (final_norm == nullptr) {
    return sum + out;
  }
  return std::get<1>(tensor::add_rms_norm(sum, out, final_norm, eps_));
}

}  // namespace kamerton::model
