// SPDX-License-Identifier: Apache-2.0
#include "experts.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/tensor/experts.h"
#include "kamerton/tensor/kernels.h"
#include "kamerton/tensor/linear.h"

#include "declare.h"

namespace kamerton::model {
namespace {

/// down(act(gate(x)) * up(x))
struct Expert {
  Linear gate, up, down;

  at::Tensor forward(tensor::Activation activation,
                     const at::Tensor& x_RD,
                     const at::Tensor& token_R) const {
    const at::Tensor wide =
        tensor::gated(activation, gate.on_rows(x_RD, token_R), up.on_rows(x_RD, token_R));
    return down.on_rows(wide, token_R);
  }
};

/// Tokens go to their experts in groups, one product an expert and matrix; an expert without tokens
/// does nothing, and its gradient stays what the unit's owner put there: zeros.
class Experts final : public FeedForward {
 public:
  Experts(const DecoderConfig& config,
          int64_t index,
          const std::string& at,
          tensor::ParamUnit& unit)
      : index_(index), activation_(config.activation), config_(config.experts) {
    const int64_t d = config.hidden_size;
    const int64_t wide = config_.intermediate_size;
    router_ = declare(unit, at + config_.router + ".weight", {config_.count, d});
    experts_.reserve(static_cast<size_t>(config_.count));
    for (int64_t i = 0; i < config_.count; ++i) {
      const std::string name = fmt::format("{}{}.{}.", at, config_.experts, i);
      experts_.push_back({declare_linear(unit, name + config_.gate, d, wide, false),
                          declare_linear(unit, name + config_.up, d, wide, false),
                          declare_linear(unit, name + config_.down, wide, d, false)});
    }
  }

  at::Tensor forward(const at::Tensor& normed_ND, const BlockContext& context) const override {
    const at::Tensor logits_NE = tensor::linear(normed_ND, router_);
    if (context.router_observer) {
      context.router_observer(index_, logits_NE);
    }
    const tensor::Routing routing =
        tensor::route(logits_NE, config_.choices, config_.normalised, context.router_totals);
    const at::Tensor rows_MD = tensor::dispatch(normed_ND, routing);
    const std::vector<at::Tensor> inputs = at::split_with_sizes(rows_MD, routing.count_E);
    std::vector<at::Tensor> outputs;
    int64_t first = 0;
    for (size_t i = 0; i < experts_.size(); ++i) {
      const int64_t rows = routing.count_E[i];
      if (rows > 0) {
        outputs.push_back(
            experts_[i].forward(activation_, inputs[i], routing.token_M.narrow(0, first, rows)));
      }
      first += rows;
    }
    return tensor::combine(at::cat(outputs), routing);
  }

  std::vector<Linear*> linears() override {
    std::vector<Linear*> all;
    for (Expert& expert : experts_) {
      all.insert(all.end(), {&expert.gate, &expert.up, &expert.down});
    }
    return all;
  }

 private:
  int64_t index_;
  tensor::Activation activation_;
  ExpertsConfig config_;
  tensor::ParameterPtr router_;
  std::vector<Expert> experts_;
};

}  // namespace

std::unique_ptr<FeedForward> make_experts(const DecoderConfig& config,
                                          int64_t index,
                                          const std::string& at,
                                          tensor::ParamUnit& unit) {
  return std::make_unique<Experts>(config, index, at, unit);
}

}  // namespace kamerton::model
