// SPDX-License-Identifier: Apache-2.0
#include "attention.h"

#include <cmath>

#include <ATen/ATen.h>

#include "attention_cache.h"
#include "declare.h"
#include "lead_rows.h"

namespace kamerton::model {
namespace {

tensor::AttentionShape shape_of(const DecoderConfig& config, int64_t index) {
  double scale = config.attention_scale > 0 ? config.attention_scale
                                            : 1.0 / std::sqrt(static_cast<double>(config.head_dim));
  if (config.scale_by_layer) {
    scale /= static_cast<double>(index + 1);
  }
  return {.heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .scale = scale,
          .window = config.windows[static_cast<size_t>(index)],
          .soft_cap = config.attention_cap};
}

}  // namespace

Attention::Attention(const DecoderConfig& config,
                     int64_t index,
                     const std::string& at,
                     tensor::ParamUnit& unit)
    : index_(index),
      layout_(config.qkv),
      qk_norm_(config.qk_norm),
      rotary_(config.rotary),
      local_(config.local_rope.has_value() && config.sliding[static_cast<size_t>(index)]),
      shape_(shape_of(config, index)) {
  const ModuleNames& names = config.names;
  const int64_t d = config.hidden_size;
  const auto linear = [&](const std::string& name, int64_t in, int64_t out, bool bias) {
    return declare_linear(unit, at + name, in, out, bias, config.transposed_linear);
  };
  if (layout_ == QkvLayout::Separate) {
    q_ = linear(names.q, d, config.query_size(), config.qkv_bias);
    k_ = linear(names.k, d, config.kv_size(), config.qkv_bias);
    v_ = linear(names.v, d, config.kv_size(), config.qkv_bias);
  } else {
    qkv_ = linear(names.qkv, d, config.query_size() + 2 * config.kv_size(), config.qkv_bias);
  }
  if (qk_norm_ != QkNorm::None) {
    const bool by_head = qk_norm_ == QkNorm::Head;
    const int64_t q_width = by_head ? config.head_dim : config.query_size();
    const int64_t k_width = by_head ? config.head_dim : config.kv_size();
    q_norm_ = declare_norm(unit, at, names.q_norm, q_width, config);
    k_norm_ = declare_norm(unit, at, names.k_norm, k_width, config);
  }
  output_ = linear(names.output, config.query_size(), d, config.output_bias);
}

std::vector<Linear*> Attention::linears() {
  if (layout_ == QkvLayout::Separate) {
    return {&q_, &k_, &v_, &output_};
  }
  return {&qkv_, &output_};
}

Attention::Projected Attention::project(const at::Tensor& normed_ND) const {
  if (layout_ == QkvLayout::Separate) {
    return {q_(normed_ND), k_(normed_ND), v_(normed_ND)};
  }
  const at::Tensor all = qkv_(normed_ND);
  if (layout_ == QkvLayout::ByHead) {
    const std::vector<at::Tensor> parts =
        all.view({all.size(0), shape_.heads, 3, shape_.head_dim}).unbind(2);
    return {parts[0].flatten(1), parts[1].flatten(1), parts[2].flatten(1)};
  }
  const int64_t kv = shape_.kv_heads * shape_.head_dim;
  const std::vector<at::Tensor> parts =
      all.split_with_sizes({shape_.heads * shape_.head_dim, kv, kv}, 1);
  return {parts[0], parts[1], parts[2]};
}

at::Tensor Attention::normalised(const Norm& norm, const at::Tensor& x_NE) const {
  return qk_norm_ == QkNorm::Head ? norm(x_NE.reshape({-1, shape_.head_dim})).view(x_NE.sizes())
                                  : norm(x_NE);
}

at::Tensor Attention::attended(const Projected& x, const BlockContext& context) const {
  static const tensor::Rotary kNone;
  const tensor::Rotary& rotary = !rotary_ ? kNone : local_ ? context.local_rotary : context.rotary;
  if (context.cache != nullptr) {
    return context.cache->attend(index_, x.q, x.k, x.v, rotary, shape_, context.offsets);
  }
  return tensor::attend(x.q, x.k, x.v, rotary, shape_, context.offsets);
}

at::Tensor Attention::forward(const at::Tensor& normed_ND,
                              const BlockContext& context,
                              BlockExtension* extension) const {
  Projected x = project(normed_ND);
  if (qk_norm_ != QkNorm::None) {
    x.q = normalised(q_norm_, x.q);
    x.k = normalised(k_norm_, x.k);
  }
  if (context.prefix == nullptr || extension == nullptr) {
    return output_(attended(x, context));
  }
  // The prefix's rows get queries too, whose results nobody reads: the kernels need no second kind
  // of row.
  const at::Tensor keys = extension->prefix_keys();
  const at::Tensor queries = at::zeros({keys.size(0), x.q.size(1)}, x.q.options());
  x = {context.prefix->insert(x.q, queries),
       context.prefix->insert(x.k, keys),
       context.prefix->insert(x.v, extension->prefix_values())};
  return output_(context.prefix->own(attended(x, context)));
}

}  // namespace kamerton::model
