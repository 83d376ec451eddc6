// SPDX-License-Identifier: Apache-2.0
// Adapters that become part of the base's weights.
#include <ATen/ATen.h>

#include "kamerton/core/error.h"

#include "adapter_state.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;

at::Tensor turned(const at::Tensor& weight, const model::Linear& linear) {
  return linear.transposed ? weight.t() : weight;
}

/// A parameter's value for as long as this lives.
class Borrowed {
 public:
  Borrowed(const std::vector<tensor::ParameterPtr>& parameters, const ReadAdapter& read) {
    for (const tensor::ParameterPtr& parameter : parameters) {
      before_.emplace_back(parameter, parameter->value);
      parameter->value = read(*parameter).view(parameter->shape);
    }
  }
  ~Borrowed() {
    for (auto& [parameter, value] : before_) {
      parameter->value = value;
    }
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

 private:
  std::vector<std::pair<tensor::ParameterPtr, at::Tensor>> before_;
};

}  // namespace

const std::vector<tensor::ParameterPtr>* Adapter::State::parameters_behind(
    const tensor::Parameter& parameter) const {
  const auto found = by_base.find(&parameter);
  if (found != by_base.end()) {
    return &changed[found->second].parameters;
  }
  const bool embedding = parameter.name == decoder.config().names.embedding + ".weight";
  return embedding && merged_embedding ? &embedding_parameters : nullptr;
}

/// The base parameter with the adapter in it, fp32, from values that are whole.
at::Tensor Adapter::State::merged_value(const tensor::Parameter& parameter,
                                        const at::Tensor& whole) const {
  const at::NoGradGuard no_grad;
  const at::Tensor stored = whole.detach().to(at::kFloat);
  at::Tensor result;
  const auto found = by_base.find(&parameter);
  if (found == by_base.end()) {
    result = merged_embedding(stored);
  } else {
    const Changed& one = changed[found->second];
    result = &parameter == one.linear->weight.get()
                 ? turned(one.change->merged(turned(stored, *one.linear)), *one.linear)
                 : one.change->merged_bias(stored);
  }
  if (!at::isfinite(result).all().item<bool>()) {
    throw Error(ErrorKind::Numeric,
                {.where = "tuning.merge",
                 .what = "the adapter's update is not finite",
                 .got = parameter.name,
                 .hint = "an earlier checkpoint"});
  }
  return result.contiguous();
}

bool Adapter::can_switch_off() const {
  if (state_->trains_base || state_->stays_on) {
    return false;
  }
  for (const Changed& one : state_->changed) {
    if (one.change->changes_start()) {
      return false;
    }
  }
  return true;
}

bool Adapter::can_merge() const {
  return state_->unmergeable.empty();
}

bool Adapter::changes_base(const tensor::Parameter& parameter) const {
  const auto found = state_->by_base.find(&parameter);
  return found != state_->by_base.end() &&
         state_->changed[found->second].linear->weight.get() == &parameter &&
         state_->changed[found->second].change->changes_start();
}

at::Tensor Adapter::starting_base(const tensor::Parameter& parameter,
                                  uint64_t seed,
                                  const ReadBase& base) const {
  const at::NoGradGuard no_grad;
  const Changed& one = state_->changed[state_->by_base.at(&parameter)];
  const at::Tensor whole = base(parameter).to(at::kFloat);
  return turned(one.change->starting(turned(whole, *one.linear), {seed, parameter.name, base}),
                *one.linear)
      .contiguous();
}

at::Tensor Adapter::merged(const tensor::Parameter& parameter,
                           const at::Tensor& whole,
                           const ReadAdapter& read) const {
  const auto* behind = state_->parameters_behind(parameter);
  if (behind == nullptr) {
    return whole;
  }
  const Borrowed values(*behind, read);
  return state_->merged_value(parameter, whole);
}

void Adapter::merge(bool keep) {
  State& state = *state_;
  if (state.merged) {
    return;
  }
  if (!state.unmergeable.empty()) {
    throw Error(ErrorKind::Config,
                {.where = "tuning.merge",
                 .what = "an adapter of this kind cannot be merged",
                 .got = state.spec.method + ": " + state.unmergeable});
  }
  const at::NoGradGuard no_grad;
  std::vector<tensor::ParameterPtr> bases;
  for (const tensor::ParameterPtr& parameter : state.decoder.parameters()) {
    if (state.parameters_behind(*parameter) != nullptr) {
      state.merged_value(*parameter, parameter->value);  // finite, or nothing is changed
      bases.push_back(parameter);
    }
  }
  for (const tensor::ParameterPtr& parameter : bases) {
    at::Tensor weight = parameter->value.detach();
    if (keep) {
      state.originals.emplace_back(parameter, weight.clone());
    }
    weight.copy_(state.merged_value(*parameter, weight));
  }
  for (const Changed& one : state.changed) {
    one.linear->extension.reset();
  }
  state.embedding_extension = std::exchange(state.decoder.extensions().embedding, nullptr);
  state.merged = true;
  state.kept = keep;
}

void Adapter::unmerge() {
  State& state = *state_;
  if (!state.merged) {
    return;
  }
  if (!state.kept) {
    throw Error(ErrorKind::Internal,
                {.where = "tuning.merge", .what = "the weights before the merge were not kept"});
  }
  const at::NoGradGuard no_grad;
  for (auto& [parameter, before] : state.originals) {
    parameter->value.detach().copy_(before);
  }
  state.originals.clear();
  for (const Changed& one : state.changed) {
    one.linear->extension = one.extension;
  }
  state.decoder.extensions().embedding = state.embedding_extension;
  state.merged = false;
}

}  // namespace kamerton::tuning
