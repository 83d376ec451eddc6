// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/lora.h"

#include <cmath>
#include <regex>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/core/random.h"
#include "kamerton/tensor/linear.h"

#include "dropout.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;

bool ends_with_module(const std::string& module, const std::string& name) {
  return module == name || (module.size() > name.size() && module.ends_with(name) &&
                            module[module.size() - name.size() - 1] == '.');
}

std::regex compile(const std::string& expression) {
  try {
    return std::regex(expression);
  } catch (const std::regex_error& error) {
    throw Error(ErrorKind::Config,
                {.where = "tuning.lora",
                 .what = "not a regular expression",
                 .got = "'" + expression + "'",
                 .allowed = "ECMAScript syntax",
                 .hint = error.what()});
  }
}

/// PEFT: the first pattern that matches the end of a module's name, at a dot.
template <class Value>
Value by_pattern(const std::vector<std::pair<std::string, Value>>& patterns,
                 const std::string& module,
                 Value otherwise) {
  for (const auto& [expression, value] : patterns) {
    if (std::regex_match(module, compile("(.*\\.)?(" + expression + ")$"))) {
      return value;
    }
  }
  return otherwise;
}

/// "model.layers.7.self_attn.q_proj" -> 7; -1 when the module is in no layer.
int64_t layer_of(const std::string& module) {
  std::smatch match;
  static const std::regex number("\\.(\\d+)\\.");
  return std::regex_search(module, match, number) ? std::stoll(match[1]) : -1;
}

/// y = base + scale * B (A drop(x)).
class LoraExtension : public model::LinearExtension {
 public:
  LoraExtension(tensor::ParameterPtr a,
                tensor::ParameterPtr b,
                double scale,
                double dropout,
                uint64_t layer,
                std::shared_ptr<DropoutKeys> keys)
      : a_(std::move(a)),
        b_(std::move(b)),
        scale_(scale),
        dropout_(dropout),
        layer_(layer),
        keys_(std::move(keys)) {}

  at::Tensor apply(const model::Linear&, const at::Tensor& x, const at::Tensor& base) override {
    if (keys_->adapter_off) {
      return base;
    }
    return add(x, base, keys_->keys_N);
  }
  at::Tensor apply_to_rows(const model::Linear&,
                           const at::Tensor& x,
                           const at::Tensor& base,
                           const at::Tensor& token_R) override {
    if (keys_->adapter_off) {
      return base;
    }
    const at::Tensor& keys_N = keys_->keys_N;
    return add(x, base, keys_N.defined() ? keys_N.index_select(0, token_R) : keys_N);
  }

 private:
  at::Tensor add(const at::Tensor& x, const at::Tensor& base, const at::Tensor& keys) const {
    at::Tensor input = x;
    if (dropout_ > 0 && keys.defined()) {
      input = dropout(x, keys, dropout_, keys_->seed ^ (layer_ * 0x9E3779B97F4A7C15ULL));
    }
    const at::Tensor narrow = tensor::linear(input, a_, nullptr);
    return at::add(base, tensor::linear(narrow, b_, nullptr), scale_);
  }

  tensor::ParameterPtr a_;
  tensor::ParameterPtr b_;
  double scale_;
  double dropout_;
  uint64_t layer_;
  std::shared_ptr<DropoutKeys> keys_;
};

std::string known_modules(const model::Decoder& decoder) {
  std::set<std::string> last_names;
  for (const model::Linear* linear : decoder.linears()) {
    last_names.insert(linear->name.substr(linear->name.rfind('.') + 1));
  }
  return fmt::format("{}", fmt::join(last_names, ", "));
}

void check_targets(const LoraSpec& spec, const model::Decoder& decoder) {
  for (const std::string& target : spec.targets) {
    LoraSpec one = spec;
    one.targets = {target};
    one.layers_to_transform.clear();
    bool found = false;
    for (const model::Linear* linear : decoder.linears()) {
      found = found || one.targets_module(linear->name);
    }
    if (!found) {
      throw Error(ErrorKind::Config,
                  {.where = "tuning.lora",
                   .what = "a target matches no linear module of this model",
                   .got = "'" + target + "'",
                   .allowed = known_modules(decoder) + ", all-linear, or re:EXPRESSION",
                   .hint = "correct tuning.lora.targets"});
    }
  }
}

tensor::ParameterPtr make_parameter(const std::string& name, std::vector<int64_t> shape) {
  auto parameter = std::make_shared<tensor::Parameter>();
  parameter->name = name;
  parameter->shape = std::move(shape);
  parameter->adapter = true;
  return parameter;
}

}  // namespace

LoraSpec LoraSpec::from(const LoraConfig& config) {
  LoraSpec spec;
  spec.r = config.r;
  spec.alpha = config.alpha;
  spec.dropout = config.dropout;
  spec.use_rslora = config.use_rslora;
  spec.targets = config.targets;
  return spec;
}

bool LoraSpec::targets_module(const std::string& module) const {
  if (!layers_to_transform.empty() &&
      std::find(layers_to_transform.begin(), layers_to_transform.end(), layer_of(module)) ==
          layers_to_transform.end()) {
    return false;
  }
  for (const std::string& target : targets) {
    if (target == "all-linear") {
      if (!ends_with_module(module, "lm_head")) {
        return true;
      }
    } else if (target.starts_with("re:")) {
      if (std::regex_match(module, compile(target.substr(3)))) {
        return true;
      }
    } else if (ends_with_module(module, target)) {
      return true;
    }
  }
  return false;
}

int64_t LoraSpec::rank_of(const std::string& module) const {
  return by_pattern(rank_pattern, module, r);
}

double LoraSpec::scale_of(const std::string& module) const {
  const auto rank = static_cast<double>(rank_of(module));
  return by_pattern(alpha_pattern, module, alpha) / (use_rslora ? std::sqrt(rank) : rank);
}

Lora Lora::attach(model::Decoder& decoder, const LoraSpec& spec) {
  check_targets(spec, decoder);
  Lora lora;
  lora.spec_ = spec;
  lora.keys_ = std::make_shared<DropoutKeys>();
  for (tensor::ParamUnit& unit : decoder.units()) {
    for (const tensor::ParameterPtr& parameter : unit.parameters) {
      parameter->trainable = false;
    }
  }
  for (model::Linear* linear : decoder.linears()) {
    if (!spec.targets_module(linear->name)) {
      continue;
    }
    const int64_t rank = spec.rank_of(linear->name);
    LoraPair pair{linear,
                  make_parameter(linear->name + ".lora_A.weight", {rank, linear->in_features}),
                  make_parameter(linear->name + ".lora_B.weight", {linear->out_features, rank}),
                  spec.scale_of(linear->name)};
    auto& parameters = decoder.units()[static_cast<size_t>(linear->unit)].parameters;
    parameters.push_back(pair.a);
    parameters.push_back(pair.b);
    linear->extension = std::make_shared<LoraExtension>(
        pair.a, pair.b, pair.scale, spec.dropout, lora.pairs_.size() + 1, lora.keys_);
    lora.pairs_.push_back(std::move(pair));
  }
  return lora;
}

void Lora::initialise(const tensor::Parameter& parameter,
                      uint64_t seed,
                      int64_t offset,
                      at::Tensor out) {
  if (parameter.name.ends_with(".lora_B.weight")) {
    out.zero_();
    return;
  }
  const core::RandomStream random(seed, "lora_A:" + parameter.name);
  const double bound = 1.0 / std::sqrt(static_cast<double>(parameter.shape[1]));
  at::Tensor values = at::empty({out.numel()}, at::kFloat);
  auto* data = values.data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    data[i] =
        static_cast<float>((2.0 * random.uniform(static_cast<uint64_t>(offset + i)) - 1.0) * bound);
  }
  out.copy_(values);
}

void Lora::merge() {
  const at::NoGradGuard no_grad;
  for (LoraPair& pair : pairs_) {
    const at::Tensor update =
        at::mm(pair.b->value.to(at::kFloat), pair.a->value.to(at::kFloat)).mul_(pair.scale);
    if (!at::isfinite(update).all().item<bool>()) {
      throw Error(ErrorKind::Numeric,
                  {.where = "tuning.lora",
                   .what = "the adapter's update is not finite",
                   .got = pair.linear->name,
                   .hint = "an earlier checkpoint"});
    }
    at::Tensor weight = pair.linear->weight->value.detach();
    weight.copy_(weight.to(at::kFloat) + (pair.linear->transposed ? update.t() : update));
    pair.linear->extension.reset();
  }
  pairs_.clear();
}

void freeze(model::Decoder& decoder, const std::vector<std::string>& expressions) {
  for (const std::string& expression : expressions) {
    const std::regex pattern = compile(expression);
    size_t matches = 0;
    for (tensor::ParamUnit& unit : decoder.units()) {
      for (const tensor::ParameterPtr& parameter : unit.parameters) {
        if (std::regex_match(parameter->name, pattern)) {
          parameter->trainable = false;
          ++matches;
        }
      }
    }
    if (matches == 0) {
      throw Error(
          ErrorKind::Config,
          {.where = "tuning.freeze",
           .what = "the expression matches no parameter",
           .got = "'" + expression + "'",
           .allowed = "a regular expression for whole names such as model\\.layers\\.[0-5]\\..*"});
    }
  }
}

}  // namespace kamerton::tuning
