// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/adapter.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/core/random.h"

#include "adapter_state.h"
#include "patterns.h"
#include "peft_config.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;

std::string last_name(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

[[noreturn]] void refuse_target(const std::string& target, const std::set<std::string>& known) {
  const std::vector<std::string> names(known.begin(), known.end());
  throw Error(ErrorKind::Config,
              {.where = "tuning.adapter",
               .what = "a target matches no module of this model that the method can change",
               .got = "'" + target + "'",
               .allowed = fmt::format("{}, all-linear, or re:EXPRESSION", fmt::join(names, ", ")),
               .hint = config::nearest(last_name(target), names)});
}

/// The one extension of linear modules: whatever the method, on or off.
class ChangedModule final : public model::LinearExtension {
 public:
  ChangedModule(std::shared_ptr<ModuleChange> change,
                uint64_t number,
                std::shared_ptr<DropoutKeys> keys)
      : change_(std::move(change)), number_(number), keys_(std::move(keys)) {}

  at::Tensor apply(const model::Linear& base,
                   const at::Tensor& x,
                   const at::Tensor& token_R) override {
    if (keys_->adapter_off) {
      return base.product(x);
    }
    const at::Tensor& all = keys_->keys_N;
    const at::Tensor keys = all.defined() && token_R.defined() ? all.index_select(0, token_R) : all;
    return change_->apply({base, *keys_, keys, number_}, x);
  }

 private:
  std::shared_ptr<ModuleChange> change_;
  uint64_t number_;
  std::shared_ptr<DropoutKeys> keys_;
};

}  // namespace

/// Fills an adapter's state.
class StateBuilder final : public Builder {
 public:
  explicit StateBuilder(Adapter::State& state) : state_(state) {}

  tensor::ParameterPtr add(int unit,
                           const std::string& name,
                           std::vector<int64_t> shape,
                           Initial initial,
                           const std::string& key) override {
    auto parameter = std::make_shared<tensor::Parameter>();
    parameter->name = name;
    parameter->shape = std::move(shape);
    parameter->adapter = true;
    state_.decoder.units()[static_cast<size_t>(unit)].parameters.push_back(parameter);
    state_.initials.emplace(parameter.get(), std::move(initial));
    state_.entries.push_back({parameter, key.empty() ? std::string(kPeftPrefix) + name : key});
    fresh_.push_back(parameter);
    return parameter;
  }
  tensor::ParameterPtr add_frozen(int unit,
                                  const std::string& name,
                                  std::vector<int64_t> shape,
                                  Initial initial) override {
    tensor::ParameterPtr parameter = add(unit, name, std::move(shape), std::move(initial), "");
    parameter->trainable = false;
    return parameter;
  }
  void copy_as(const std::string& key) override { state_.entries.back().copies.push_back(key); }
  void part_of_columns(int64_t place, int64_t places) override {
    state_.entries.back().place = place;
    state_.entries.back().places = places;
  }
  void train(const tensor::ParameterPtr& base, const std::string& key) override {
    if (!base->trainable) {
      base->trainable = true;
      state_.trains_base = true;
      state_.entries.push_back({base, key});
    }
  }
  std::shared_ptr<at::Tensor> constant(std::vector<std::string> keys,
                                       at::Tensor value,
                                       bool needed) override {
    auto held = std::make_shared<at::Tensor>(value.to(state_.decoder.device()));
    state_.constants.push_back({std::move(keys), held, needed});
    return held;
  }
  void change(model::Linear& linear, std::unique_ptr<ModuleChange> change) override {
    Changed changed{&linear, std::move(change), state_.changed.size() + 1, std::move(fresh_), {}};
    fresh_.clear();
    changed.extension =
        std::make_shared<ChangedModule>(changed.change, changed.number, state_.keys);
    linear.extension = changed.extension;
    state_.by_base.emplace(linear.weight.get(), state_.changed.size());
    if (linear.bias != nullptr) {
      state_.by_base.emplace(linear.bias.get(), state_.changed.size());
    }
    state_.changed.push_back(std::move(changed));
  }
  void prunes(ModuleTriplets triplets) override { state_.triplets.push_back(std::move(triplets)); }
  void refuse_merge(const std::string& reason) override { state_.unmergeable = reason; }
  void stays_on() override { state_.stays_on = true; }
  void choose_targets(const std::vector<std::string>& targets) override {
    if (state_.spec.targets.empty()) {
      state_.spec.targets = targets;
    }
  }
  void settle(const char* setting, core::Json value) override {
    (*state_.spec.settings)[setting] = std::move(value);
  }
  void merge_embedding(std::function<at::Tensor(const at::Tensor&)> merged) override {
    state_.merged_embedding = std::move(merged);
    state_.embedding_parameters = std::move(fresh_);
    fresh_.clear();
  }

  model::Decoder& decoder() override { return state_.decoder; }
  const AdapterSpec& spec() const override { return state_.spec; }
  std::shared_ptr<DropoutKeys> switches() const override { return state_.keys; }

  std::vector<model::Linear*> targeted(const std::vector<std::string>& others) override {
    std::set<std::string> known;
    for (const std::string& other : others) {
      known.insert(last_name(other));
    }
    for (const model::Linear* linear : state_.decoder.linears()) {
      known.insert(last_name(linear->name));
    }
    for (const std::string& target : state_.spec.targets) {
      check_target(target, others, known);
    }
    for (const std::string& name : state_.spec.excluded) {
      if (!finds(name, others)) {
        core::log_warning(fmt::format("no module is excluded by '{}' (tuning.exclude)", name));
      }
    }
    std::vector<model::Linear*> chosen;
    for (model::Linear* linear : state_.decoder.linears()) {
      if (state_.spec.targets_module(linear->name)) {
        chosen.push_back(linear);
      }
    }
    return chosen;
  }

 private:
  void check_target(const std::string& target,
                    const std::vector<std::string>& others,
                    const std::set<std::string>& known) const {
    if (!finds(target, others)) {
      refuse_target(target, known);
    }
  }
  bool finds(const std::string& target, const std::vector<std::string>& others) const {
    AdapterSpec one;
    one.targets = {target};
    const auto& linears = state_.decoder.linears();
    return std::any_of(
               linears.begin(),
               linears.end(),
               [&](const model::Linear* linear) { return one.targets_module(linear->name); }) ||
           std::any_of(others.begin(), others.end(), [&](const std::string& other) {
             return names_module(one, other);
           });
  }

  Adapter::State& state_;
  std::vector<tensor::ParameterPtr> fresh_;  // added since the last change
};

double Builder::by_pattern(const char* setting, const std::string& module, double otherwise) const {
  return pattern_value(spec().settings->at(setting), module, otherwise);
}

void Builder::refuse(const std::string& what,
                     const std::string& got,
                     const std::string& allowed) const {
  throw Error(ErrorKind::Config,
              {.where = "tuning." + spec().method, .what = what, .got = got, .allowed = allowed});
}

namespace {

/// Biases trained beside the adapter, under PEFT's names: a wrapped module's is its base layer's.
void train_biases(Adapter::State& state, Builder& builder) {
  for (const tensor::ParameterPtr& parameter : state.decoder.parameters()) {
    if (parameter->adapter || !parameter->name.ends_with(".bias")) {
      continue;
    }
    const std::string module = parameter->name.substr(0, parameter->name.size() - 5);
    const bool wrapped = state.by_base.count(parameter.get()) != 0;
    if (wrapped || state.spec.bias == "all") {
      builder.train(parameter,
                    std::string(kPeftPrefix) + module + (wrapped ? ".base_layer.bias" : ".bias"));
    }
  }
}

void train_modules(Adapter::State& state, Builder& builder) {
  std::set<std::string> known;
  for (const std::string& wanted : state.spec.modules_to_save) {
    bool found = false;
    for (const tensor::ParameterPtr& parameter : state.decoder.parameters()) {
      const std::string module = parameter->name.substr(0, parameter->name.rfind('.'));
      if (parameter->adapter) {
        continue;
      }
      known.insert(last_name(module));
      const model::ModuleNames& names = state.decoder.config().names;
      const bool tied =
          state.spec.keeps_tie && state.decoder.config().tied_head && module == names.embedding;
      if (module_ends_with(module, wanted) || (tied && module_ends_with(names.head, wanted))) {
        found = true;
        if (!parameter->trainable) {
          builder.train(parameter, std::string(kPeftPrefix) + parameter->name);
          if (tied) {
            builder.copy_as(std::string(kPeftPrefix) + names.head + ".weight");
          }
        }
      }
    }
    if (!found) {
      refuse_target(wanted, known);
    }
  }
}

}  // namespace

Adapter::Adapter() = default;
Adapter::Adapter(Adapter&&) noexcept = default;
Adapter& Adapter::operator=(Adapter&&) noexcept = default;
Adapter::~Adapter() = default;

Adapter Adapter::attach(model::Decoder& decoder, const AdapterSpec& spec) {
  const Method& method = find_method(spec.method);
  Adapter adapter;
  adapter.state_ = std::make_unique<State>(decoder);
  State& state = *adapter.state_;
  state.spec = spec;
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    if (!parameter->adapter) {
      parameter->trainable = false;
    }
  }
  for (const int64_t layer : spec.layers_to_transform) {
    if (layer < 0 || layer >= decoder.config().layers) {
      throw Error(ErrorKind::Config,
                  {.where = "tuning.adapter",
                   .what = "the model has no such layer",
                   .got = std::to_string(layer),
                   .allowed = fmt::format("0 to {}", decoder.config().layers - 1)});
    }
  }
  StateBuilder builder(state);
  method.attach(builder);
  train_modules(state, builder);
  if (spec.bias != "none") {
    train_biases(state, builder);
  }
  return adapter;
}

const AdapterSpec& Adapter::spec() const {
  return state_->spec;
}
std::vector<std::string> Adapter::modules() const {
  std::vector<std::string> names;
  for (const Changed& one : state_->changed) {
    names.push_back(one.linear->name);
  }
  return names;
}
const model::Decoder& Adapter::decoder() const {
  return state_->decoder;
}
const std::vector<AdapterEntry>& Adapter::entries() const {
  return state_->entries;
}
const std::vector<AdapterConstant>& Adapter::constants() const {
  return state_->constants;
}
const std::vector<ModuleTriplets>& Adapter::triplets() const {
  return state_->triplets;
}
void Adapter::settle(const char* setting, core::Json value) {
  (*state_->spec.settings)[setting] = std::move(value);
}
DropoutKeys& Adapter::dropout_keys() const {
  return *state_->keys;
}

int64_t Adapter::activation_width() const {
  int64_t width = 0;
  for (const Changed& changed : state_->changed) {
    const auto& shape =
        changed.parameters.empty() ? std::vector<int64_t>{} : changed.parameters.front()->shape;
    width += shape.size() == 2 ? std::min(shape[0], shape[1]) : 0;
  }
  return width / std::max<int64_t>(state_->decoder.config().layers, 1);
}

void Adapter::initialise(const tensor::Parameter& parameter,
                         uint64_t seed,
                         int64_t offset,
                         at::Tensor out,
                         const ReadBase& base) const {
  const Initial& initial = state_->initials.at(&parameter);
  if (initial.kind == Initial::Kind::Constant) {
    out.fill_(initial.value);
    return;
  }
  if (initial.kind == Initial::Kind::Computed) {
    if (state_->computed_name != parameter.name) {
      state_->computed = initial.compute({seed, parameter.name, base}).contiguous().view({-1});
      state_->computed_name = parameter.name;
    }
    out.copy_(state_->computed.narrow(0, offset, out.numel()));
    return;
  }
  const core::RandomStream random(seed, parameter.name);
  at::Tensor values = at::empty({out.numel()}, at::kFloat);
  auto* data = values.mutable_data_ptr<float>();
  const bool uniform = initial.kind == Initial::Kind::Uniform;
  for (int64_t i = 0; i < out.numel(); ++i) {
    const auto at = static_cast<uint64_t>(offset + i);
    const double draw = uniform ? 2.0 * random.uniform(at) - 1.0 : random.normal(at);
    data[i] = static_cast<float>(draw * initial.value);
  }
  out.copy_(values);
}

namespace {

void require_biases(const Adapter& adapter) {
  const auto parameters = adapter.decoder().parameters();
  const bool trained =
      std::any_of(parameters.begin(), parameters.end(), [](const tensor::ParameterPtr& one) {
        return !one->adapter && one->trainable && one->name.ends_with(".bias");
      });
  if (adapter.spec().bias != "none" && !trained) {
    throw Error(ErrorKind::Config,
                {.where = "tuning.adapter",
                 .what = adapter.spec().bias == "all" ? "the model has no biases to train"
                                                      : "the adapter's targets have no biases",
                 .got = "tuning.bias: " + adapter.spec().bias,
                 .allowed = "none"});
  }
}

}  // namespace

void require_used_settings(const Adapter& adapter) {
  require_biases(adapter);
  std::vector<std::string> modules = adapter.modules();
  modules.push_back(adapter.decoder().config().names.embedding);
  for (const char* key : {"rank_pattern", "alpha_pattern", "n_frequency_pattern"}) {
    const core::Json* pattern = core::json_find(*adapter.spec().settings, key);
    if (pattern == nullptr || !pattern->is_object()) {
      continue;
    }
    for (const auto& [expression, value] : pattern->items()) {
      const core::Json one = {{expression, 1.0}};
      if (std::none_of(modules.begin(), modules.end(), [&one](const std::string& module) {
            return pattern_value(one, module, 0.0) != 0.0;
          })) {
        std::set<std::string> names;
        for (const std::string& module : modules) {
          names.insert(last_name(module));
        }
        throw Error(ErrorKind::Config,
                    {.where = "tuning.adapter",
                     .what = fmt::format("an expression of {} matches no changed module", key),
                     .got = "'" + expression + "'",
                     .allowed = fmt::format("the end of a name such as {}", modules.front()),
                     .hint = config::nearest(last_name(expression), {names.begin(), names.end()})});
      }
    }
  }
}

void begin_base(model::Decoder& decoder, const Adapter& adapter) {
  const at::NoGradGuard no_grad;
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    if (!parameter->adapter && adapter.changes_base(*parameter)) {
      const at::Tensor value = parameter->value.detach();
      value.copy_(adapter.starting_base(
          *parameter, 0, [](const tensor::Parameter& base) { return base.value.detach(); }));
    }
  }
}

void freeze(model::Decoder& decoder, const std::vector<std::string>& expressions) {
  for (const std::string& expression : expressions) {
    const std::regex pattern = compile(expression);
    size_t matches = 0;
    for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
      if (std::regex_match(parameter->name, pattern)) {
        parameter->trainable = false;
        ++matches;
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
