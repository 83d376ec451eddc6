// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/logits_loss.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/core/error.h"
#include "kamerton/tensor/linear.h"

#include "node.h"

namespace kamerton::tensor {
namespace {

constexpr int64_t kChunkBytes = int64_t{48} << 20;  // of fp32 logits

int64_t rows_of_chunk(const ParameterPtr& head, const TokenLossOptions& options) {
  return options.chunk_rows > 0 ? options.chunk_rows
                                : std::clamp<int64_t>(kChunkBytes / (head->shape[0] * 4), 16, 1024);
}

at::Tensor shaped(const at::Tensor& logits, const TokenLossOptions& options) {
  at::Tensor z = options.logit_scale == 1.0 ? logits : logits * options.logit_scale;
  return options.soft_cap > 0 ? at::tanh(z / options.soft_cap) * options.soft_cap : z;
}

struct RootStep final : BackwardStep {
  at::Tensor dhidden;

  variable_list backward(variable_list grads) override {
    if (grads[0].defined() && grads[0].item<float>() != 1.0f) {
      throw core::Error(core::ErrorKind::Internal,
                        {.where = "tensor.logits_loss",
                         .what = "the fused loss must be a root of backward",
                         .got = fmt::format("gradient {}", grads[0].item<float>()),
                         .allowed = "1"});
    }
    return {std::move(dhidden)};
  }
  void release_variables() override { dhidden.reset(); }
};

/// One pass over the chunks: their losses, and where wanted their gradients.
class Pass {
 public:
  Pass(const at::Tensor& hidden_ND,
       const ParameterPtr& head,
       const ChunkLoss& loss,
       const TokenLossOptions& options,
       bool records)
      : hidden_(hidden_ND.detach()),
        head_(head),
        loss_(loss),
        options_(options),
        records_(records),
        weight_(prepared_operand(head->value.detach())) {}

  double run(const at::Tensor& rows_M, at::Tensor dhidden) {
    double total = 0;
    const int64_t step = rows_of_chunk(head_, options_);
    for (int64_t begin = 0; begin < rows_M.size(0); begin += step) {
      const at::Tensor rows = rows_M.narrow(0, begin, std::min(step, rows_M.size(0) - begin));
      total += chunk(rows, begin, dhidden);
    }
    return total;
  }

 private:
  double chunk(const at::Tensor& rows, int64_t begin, at::Tensor& dhidden) {
    const at::NoGradGuard no_grad;
    const at::Tensor picked = hidden_.index_select(0, rows).to(weight_.scalar_type());
    at::Tensor logits = product_transposed(picked, weight_).to(at::kFloat);
    at::Tensor part;
    {
      const at::AutoGradMode mode(records_);
      logits.requires_grad_(records_);
      part = loss_(shaped(logits, options_), begin);
      if (records_) {
        torch::autograd::backward({part}, {});
      }
    }
    if (records_ && logits.grad().defined()) {
      const at::Tensor dlogits = logits.grad().to(weight_.scalar_type());
      if (dhidden.defined()) {
        dhidden.index_copy_(0, rows, product(dlogits, weight_).to(dhidden.scalar_type()));
      }
      if (head_->trainable) {
        at::Tensor target = head_->accumulator();
        add_outer_product(target, dlogits, picked);
      }
    }
    return part.item<double>();
  }

  at::Tensor hidden_;
  const ParameterPtr& head_;
  const ChunkLoss& loss_;
  const TokenLossOptions& options_;
  bool records_;
  at::Tensor weight_;
};

}  // namespace

LogitsOf logits_of(const ParameterPtr& head, const TokenLossOptions& options) {
  const at::Tensor weight = prepared_operand(head->value.detach());
  return [weight, options](const at::Tensor& hidden_MD) {
    const at::NoGradGuard no_grad;
    return shaped(
        product_transposed(hidden_MD.detach().to(weight.scalar_type()), weight).to(at::kFloat),
        options);
  };
}

at::Tensor logits_loss(const at::Tensor& hidden_ND,
                       const ParameterPtr& head,
                       const at::Tensor& rows_M,
                       const ChunkLoss& loss,
                       const TokenLossOptions& options) {
  const bool records = recording() && (hidden_ND.requires_grad() || head->trainable);
  at::Tensor dhidden;
  if (records && hidden_ND.requires_grad()) {
    dhidden = at::zeros_like(hidden_ND.detach());
  }
  const double total = Pass(hidden_ND, head, loss, options, records).run(rows_M, dhidden);
  at::Tensor result =
      at::full({}, total, hidden_ND.options().dtype(at::kFloat).requires_grad(false));
  if (records) {
    auto step = make_step<RootStep>();
    step->dhidden = dhidden;
    connect(step, {hidden_ND}, {result});
  }
  return result;
}

at::Tensor log_collisions(const at::Tensor& hidden_ND,
                          const ParameterPtr& head,
                          const at::Tensor& targets_N,
                          const TokenLossOptions& options) {
  const at::NoGradGuard no_grad;
  const at::Tensor rows_M =
      targets_N.to(hidden_ND.device()).ne(kIgnoredTarget).nonzero().squeeze(1);
  at::Tensor result = at::zeros({hidden_ND.size(0)}, hidden_ND.options().dtype(at::kFloat));
  const ChunkLoss measure = [&](const at::Tensor& logits, int64_t begin) {
    const at::Tensor values = at::logsumexp(2 * at::log_softmax(logits, 1), {1});
    result.index_copy_(0, rows_M.narrow(0, begin, values.size(0)), values);
    return at::zeros({}, values.options());
  };
  Pass(hidden_ND, head, measure, options, false).run(rows_M, {});
  return result;
}

}  // namespace kamerton::tensor
