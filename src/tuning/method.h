// SPDX-License-Identifier: Apache-2.0
// What a method of tuning is: a row of the table in methods.cpp, a file of formulas in methods/.
// Letters in shapes: N rows, I in_features, O out_features, R rank, D hidden size, V vocabulary.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "kamerton/tuning/adapter.h"

namespace kamerton::tuning {

/// A setting under its name in PEFT's adapter_config.json; the default's type is the setting's.
struct Setting {
  const char* name;
  core::Json value;
  const char* text;
};

/// What an initial value may depend on.
struct InitialContext {
  uint64_t seed = 0;
  std::string name;  ///< of the parameter
  ReadBase base;
};

/// How a parameter starts: a pure function of (seed, name, element).
struct Initial {
  enum class Kind : uint8_t { Constant, Uniform, Normal, Computed };
  Kind kind = Kind::Constant;
  double value = 0.0;  ///< the constant, the bound (+-), the deviation
  std::function<at::Tensor(const InitialContext&)> compute = {};  ///< whole, fp32

  static Initial constant(double c) { return {Kind::Constant, c}; }
  static Initial uniform(double bound) { return {Kind::Uniform, bound}; }
  /// torch's kaiming_uniform_(a = sqrt 5).
  static Initial kaiming(int64_t fan_in);
  static Initial normal(double deviation) { return {Kind::Normal, deviation}; }
  static Initial computed(std::function<at::Tensor(const InitialContext&)> compute) {
    return {Kind::Computed, 0.0, std::move(compute)};
  }
};

/// One use of a changed module.
struct ModuleUse {
  const model::Linear& linear;
  const DropoutKeys& switches;
  const at::Tensor& keys;  ///< dropout keys of x's rows; undefined: no dropout
  uint64_t number;         ///< of the module among the targets, from 1

  at::Tensor dropped(const at::Tensor& x, double probability) const;
  /// The module's own weight as [O, I], without history.
  at::Tensor weight() const;
};

/// What a method makes of one linear module.
class ModuleChange {
 public:
  virtual ~ModuleChange() = default;
  /// x [N, I] -> [N, O], the module's own product and bias included.
  virtual at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const = 0;
  /// The weight [O, I] with the change in it; in and out fp32, own memory.
  virtual at::Tensor merged(const at::Tensor& weight) const = 0;
  virtual at::Tensor merged_bias(const at::Tensor& bias) const { return bias.clone(); }
  /// Whether the method takes a part out of the weight at the start.
  virtual bool changes_start() const { return false; }
  /// The weight [O, I] as it starts then.
  virtual at::Tensor starting(const at::Tensor& weight, const InitialContext&) const {
    return weight;
  }
};

/// y = W x + delta(W) x.
class WeightChange : public ModuleChange {
 public:
  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override;
  at::Tensor merged(const at::Tensor& weight) const override { return weight + delta(weight); }

 protected:
  /// [O, I] fp32, differentiable in the adapter's parameters.
  virtual at::Tensor delta(const at::Tensor& weight) const = 0;
  virtual double dropout() const { return 0.0; }
};

/// y = W (x R), R a map of the inputs.
class InputChange : public ModuleChange {
 public:
  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override;
  at::Tensor merged(const at::Tensor& weight) const override;

 protected:
  /// x R for rows x [N, I]; differentiable.
  virtual at::Tensor turned(const at::Tensor& x) const = 0;
};

/// What a method declares into.
class Builder {
 public:
  virtual ~Builder() = default;
  /// A parameter of the adapter in a unit; key: its name on disk, "" for
  /// "base_model.model.<name>".
  virtual tensor::ParameterPtr add(int unit,
                                   const std::string& name,
                                   std::vector<int64_t> shape,
                                   Initial initial,
                                   const std::string& key = "") = 0;
  /// One that is part of the adapter and stays as it started.
  virtual tensor::ParameterPtr add_frozen(int unit,
                                          const std::string& name,
                                          std::vector<int64_t> shape,
                                          Initial initial) = 0;
  /// A further name of the last one added.
  virtual void copy_as(const std::string& key) = 0;
  /// The last one added is columns [place * width, (place + 1) * width) of a stored matrix that has
  /// `places` such parts.
  virtual void part_of_columns(int64_t place, int64_t places) = 0;
  /// A parameter of the base that is trained with the adapter.
  virtual void train(const tensor::ParameterPtr& base, const std::string& key) = 0;
  /// A tensor that is the same on all ranks; needed: only the adapter's file knows it.
  virtual std::shared_ptr<at::Tensor> constant(std::vector<std::string> keys,
                                               at::Tensor value,
                                               bool needed = false) = 0;
  virtual void change(model::Linear& linear, std::unique_ptr<ModuleChange> change) = 0;
  /// Training prunes these.
  virtual void prunes(ModuleTriplets triplets) = 0;
  /// The adapter cannot be merged, because of what.
  virtual void refuse_merge(const std::string& reason) = 0;
  /// The adapter cannot be switched off for a while.
  virtual void stays_on() = 0;
  /// Targets for a specification that names none.
  virtual void choose_targets(const std::vector<std::string>& targets) = 0;
  /// Replaces a setting that follows from the model.
  virtual void settle(const char* setting, core::Json value) = 0;
  /// How a changed embedding is merged: its weight [V, D] fp32 -> another.
  virtual void merge_embedding(std::function<at::Tensor(const at::Tensor&)> merged) = 0;

  virtual model::Decoder& decoder() = 0;
  virtual const AdapterSpec& spec() const = 0;
  virtual std::shared_ptr<DropoutKeys> switches() const = 0;
  /// The linear modules that spec's targets name; ErrorKind::Config when a target names none of
  /// them and none of the `others`, modules of another kind that the method can change too.
  virtual std::vector<model::Linear*> targeted(const std::vector<std::string>& others = {}) = 0;

  bool flag(const char* setting) const { return spec().settings->at(setting).get<bool>(); }
  int64_t count(const char* setting) const { return spec().settings->at(setting).get<int64_t>(); }
  double number(const char* setting) const { return spec().settings->at(setting).get<double>(); }
  std::string text(const char* setting) const {
    return spec().settings->at(setting).get<std::string>();
  }
  /// The value of the first entry of a pattern setting (name -> number) whose expression matches
  /// the end of the module's name.
  double by_pattern(const char* setting, const std::string& module, double otherwise) const;
  [[noreturn]] void refuse(const std::string& what,
                           const std::string& got,
                           const std::string& allowed) const;
};

struct Method {
  std::string_view name;       ///< tuning.method
  std::string_view peft_type;  ///< adapter_config.json
  std::string_view text;       ///< one line with the paper
  std::vector<Setting> settings;
  std::vector<std::string> targets;  ///< where the user names none
  void (*attach)(Builder&);
  /// Of several methods of one peft_type: whether this one wrote the configuration.
  bool (*wrote)(const core::Json& config) = nullptr;
};

/// All methods, lora first.
const std::vector<Method>& methods();
/// ErrorKind::Config with the nearest name.
const Method& find_method(const std::string& name);
/// The method that wrote an adapter_config.json of this type; nullptr when there is none.
const Method* find_peft_type(std::string_view peft_type, const core::Json& config);

// The files in methods/.
Method lora_method();
Method ia3_method();
Method vera_method();
Method adalora_method();
Method loha_method();
Method lokr_method();
Method oft_method();
Method boft_method();
Method hra_method();
Method miss_method();
Method fourierft_method();
Method randlora_method();
Method shira_method();
Method ln_tuning_method();
Method trainable_tokens_method();
std::vector<Method> partial_methods();
std::vector<Method> bottleneck_methods();
Method prefix_tuning_method();
Method prompt_tuning_method();
Method p_tuning_method();

// Small things that several formulas use.

/// A parameter's value in fp32, with history.
inline at::Tensor wide(const tensor::ParameterPtr& parameter) {
  return parameter->value.to(at::kFloat);
}
/// Whether the module is `name` or ends with it at a dot.
bool module_ends_with(const std::string& module, const std::string& name);
/// "model.layers.7.self_attn.q_proj" -> 7; -1 when the module is in no layer.
int64_t layer_of(const std::string& module);

}  // namespace kamerton::tuning
