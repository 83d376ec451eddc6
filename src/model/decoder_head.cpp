// SPDX-License-Identifier: Apache-2.0
// The output head: logits, losses and values.
#include "kamerton/tensor/linear.h"

#include "decoder_impl.h"

namespace kamerton::model {

at::Tensor Decoder::Impl::with_head(
    const at::Tensor& hidden,
    const std::function<at::Tensor(const at::Tensor&, const tensor::ParameterPtr&)>& body) {
  return tensor::run_unit(hooks, head_unit(), hidden, false, [&](const at::Tensor& in) {
    if (!own_head()) {
      return body(in, head);
    }
    const tensor::ParameterPtr own = extensions.embedding->head(head);
    return body(own == head ? in : extensions.embedding->before_head(in, own), own);
  });
}

void Decoder::Impl::fused_head(const std::function<void(const tensor::ParameterPtr&)>& body) {
  tensor::run_unit_fused(hooks, head_unit(), [&] {
    const tensor::ParameterPtr own = own_head() ? extensions.embedding->head(head) : head;
    body(own);
    if (own != head && at::GradMode::is_enabled()) {
      extensions.embedding->fold_head(own);
    }
  });
}

at::Tensor Decoder::Impl::shaped_logits(const at::Tensor& logits) const {
  at::Tensor z = logits;
  if (config.score_head) {
    return z;
  }
  if (config.logit_scale != 1.0) {
    z = z * config.logit_scale;
  }
  if (config.logit_cap > 0) {
    z = at::tanh(z / config.logit_cap) * config.logit_cap;
  }
  return z;
}

at::Tensor Decoder::logits(const at::Tensor& hidden_MD) {
  return impl_->with_head(hidden_MD,
                          [this](const at::Tensor& in, const tensor::ParameterPtr& head) {
                            return impl_->shaped_logits(tensor::linear(in, head).to(at::kFloat));
                          });
}

tensor::TokenLoss Decoder::loss(const at::Tensor& hidden_ND,
                                const at::Tensor& targets_N,
                                tensor::TokenLossOptions options) {
  tensor::TokenLoss result;
  impl_->fused_head([&](const tensor::ParameterPtr& head) {
    result = tensor::token_loss(hidden_ND, head, targets_N, impl_->head_options(options));
  });
  return result;
}

at::Tensor Decoder::log_probs(const at::Tensor& hidden_ND,
                              const at::Tensor& targets_N,
                              double temperature) {
  tensor::TokenLossOptions options = impl_->head_options();
  options.logit_scale /= temperature;
  options.soft_cap /= temperature;  // cap tanh(z / cap) / T is (cap / T) tanh((z / T) / (cap / T))
  return impl_->with_head(
      hidden_ND, [targets_N, options](const at::Tensor& in, const tensor::ParameterPtr& head) {
        return tensor::token_log_probs(in, head, targets_N, options);
      });
}

at::Tensor Decoder::values(const at::Tensor& hidden_ND) {
  return tensor::run_unit(
      impl_->hooks, impl_->units.back(), hidden_ND, false, [this](const at::Tensor& in) {
        return tensor::linear(in, impl_->value).squeeze(1).to(at::kFloat);
      });
}

at::Tensor Decoder::log_collisions(const at::Tensor& hidden_ND, const at::Tensor& targets_N) {
  const at::NoGradGuard no_grad;
  at::Tensor result;
  impl_->fused_head([&](const tensor::ParameterPtr& head) {
    result = tensor::log_collisions(hidden_ND, head, targets_N, impl_->head_options());
  });
  return result;
}

at::Tensor Decoder::logits_loss(const at::Tensor& hidden_ND,
                                const at::Tensor& rows_M,
                                const tensor::ChunkLoss& loss) {
  at::Tensor result;
  impl_->fused_head([&](const tensor::ParameterPtr& head) {
    result = tensor::logits_loss(hidden_ND, head, rows_M, loss, impl_->head_options());
  });
  return result;
}

at::Tensor Decoder::logits_loss_beside_base(const at::Tensor& hidden_ND,
                                            const at::Tensor& rows_M,
                                            const ChunkLossBesideBase& loss) {
  at::Tensor result;
  impl_->fused_head([&](const tensor::ParameterPtr& head) {
    const tensor::LogitsOf base = tensor::logits_of(impl_->head, impl_->head_options());
    const auto beside = [&](const at::Tensor& logits_MV, int64_t begin) {
      return loss(logits_MV, begin, base);
    };
    result = tensor::logits_loss(hidden_ND, head, rows_M, beside, impl_->head_options());
  });
  return result;
}

void Decoder::with_logits(const std::function<void(const tensor::LogitsOf&)>& body) {
  const bool records = at::GradMode::is_enabled();
  const at::NoGradGuard no_grad;  // of this head; what the body computes of others is its own
  impl_->fused_head([&](const tensor::ParameterPtr& head) {
    const tensor::LogitsOf logits = tensor::logits_of(head, impl_->head_options());
    const at::AutoGradMode mode(records);
    body(logits);
  });
}

}  // namespace kamerton::model
