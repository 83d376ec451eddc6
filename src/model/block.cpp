// SPDX-License-Identifier: Apache-2.0
#include "block.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace kamerton::model {
namespace {

at::Tensor scaled(const at::Tensor& x, double scale) {
  return scale == 1.0 ? x : x * scale;
}

/// What a part of the block adds: its result after its own norm, times the residual's scale.
at::Tensor contribution(const at::Tensor& result, const Norm& norm, double scale) {
  return scaled(norm ? norm(result) : result, scale);
}

}  // namespace

std::string layer_prefix(const DecoderConfig& config, int64_t index) {
  return fmt::format("{}.{}.", config.names.layers, index);
}

Block::Block(const DecoderConfig& config, int64_t index, tensor::ParamUnit& unit)
    : parallel_(config.parallel_residual),
      residual_scale_(config.residual_scale),
      attention_norm_(declare_norm(unit,
                                   layer_prefix(config, index),
                                   config.names.attention_norm,
                                   config.hidden_size,
                                   config)),
      attention_(config, index, layer_prefix(config, index), unit) {
  const auto norm = [&](const std::string& name) {
    return declare_norm(unit, layer_prefix(config, index), name, config.hidden_size, config);
  };
  attention_out_norm_ = norm(config.names.attention_out_norm);
  feed_forward_norm_ = norm(config.names.feed_forward_norm);
  feed_forward_out_norm_ = norm(config.names.feed_forward_out_norm);
  feed_forward_ = make_feed_forward(config, index, unit);
}

std::vector<Linear*> Block::linears() {
  std::vector<Linear*> all = attention_.linears();
  const std::vector<Linear*> more = feed_forward_->linears();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<const Norm*> Block::norms() const {
  std::vector<const Norm*> all = {&attention_norm_};
  for (const Norm* norm : attention_.norms()) {
    all.push_back(norm);
  }
  all.insert(all.end(), {&attention_out_norm_, &feed_forward_norm_, &feed_forward_out_norm_});
  std::erase_if(all, [](const Norm* norm) { return !*norm; });
  return all;
}

at::Tensor Block::attended(const at::Tensor& x_ND,
                           const BlockContext& context,
                           BlockExtension* extension) const {
  const at::Tensor mixed =
      attention_.forward(attention_norm_ ? attention_norm_(x_ND) : x_ND, context, extension);
  const at::Tensor added = contribution(mixed, attention_out_norm_, residual_scale_);
  return extension == nullptr ? added : extension->after_attention(x_ND, added);
}

at::Tensor Block::fed_forward(const at::Tensor& h_ND,
                              const at::Tensor& normed_ND,
                              const BlockContext& context,
                              BlockExtension* extension) const {
  const at::Tensor added = contribution(
      feed_forward_->forward(normed_ND, context), feed_forward_out_norm_, residual_scale_);
  return extension == nullptr ? added : extension->after_feed_forward(h_ND, added);
}

at::Tensor Block::forward(const at::Tensor& x_ND,
                          const BlockContext& context,
                          const Norm& final_norm,
                          BlockExtension* extension) const {
  const at::Tensor mixed = attended(x_ND, context, extension);
  at::Tensor sum;
  at::Tensor normed;
  if (parallel_) {
    sum = x_ND + mixed;
    normed = feed_forward_norm_ ? feed_forward_norm_(x_ND) : x_ND;
  } else if (feed_forward_norm_) {
    std::tie(sum, normed) = feed_forward_norm_.after_sum(x_ND, mixed);
  } else {
    sum = normed = x_ND + mixed;
  }
  const at::Tensor out = fed_forward(sum, normed, context, extension);
  return final_norm ? std::get<1>(final_norm.after_sum(sum, out)) : sum + out;
}

}  // namespace kamerton::model
