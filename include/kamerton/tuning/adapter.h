// SPDX-License-Identifier: Apache-2.0
// An adapter on a decoder, whatever its method: which parameters it adds or trains, how they start,
// how it is merged. The methods themselves are files of formulas in src/tuning/methods.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/model/decoder.h"
#include "kamerton/tuning/adapter_switch.h"
#include "kamerton/tuning/config.h"

namespace kamerton::tuning {

/// An object of settings; a value, copied with its owner.
class SettingValues {
 public:
  SettingValues();
  SettingValues(core::Json values);  // NOLINT(google-explicit-constructor): it is the same thing
  SettingValues(const SettingValues& other);
  SettingValues(SettingValues&& other) noexcept;
  SettingValues& operator=(SettingValues other) noexcept;
  ~SettingValues();

  core::Json& operator*() { return *values_; }
  const core::Json& operator*() const { return *values_; }
  core::Json* operator->() { return values_.get(); }
  const core::Json* operator->() const { return values_.get(); }

 private:
  std::unique_ptr<core::Json> values_;
};

/// What one adapter is, apart from its tensors: the part of PEFT's adapter_config.json that changes
/// the result.
struct AdapterSpec {
  std::string method = "lora";  ///< a name of method_names()
  /// The method's own settings under PEFT's names, all of them, of the table's types.
  SettingValues settings;
  std::vector<std::string> targets;   ///< module names, "all-linear", or one "re:" expression (full
                                      ///< match); empty: the method's choice
  std::vector<std::string> excluded;  ///< in the same forms: targets that stay as they are
  std::vector<int64_t> layers_to_transform;  ///< empty: all
  std::vector<std::string> modules_to_save;  ///< modules that are trained whole beside the adapter
  std::string bias = "none";                 ///< none | all | lora_only: biases trained beside it
  /// A tied head stays tied to an embedding among modules_to_save (PEFT's ensure_weight_tying).
  bool keeps_tie = false;
  /// Dropout that its file asks for while it is trained and that is not built ("module_dropout:
  /// 0.1").
  std::vector<std::string> unbuilt_dropout = {};

  /// ErrorKind::Config for a method or setting that does not exist (with the nearest name) or a
  /// value of another type or range. Not for the methods "full" and "partial".
  static AdapterSpec from(const TuningConfig& config);
  /// Whether a decoder for this adapter needs its head apart from the embedding: see
  /// prepare_config.
  bool unties_head(const model::DecoderConfig& config) const;
  bool targets_module(const std::string& module) const;
};

/// The configuration of the decoder that the adapter is for.
model::DecoderConfig prepare_config(model::DecoderConfig config, const AdapterSpec& spec);

/// A tensor of an adapter's file.
struct AdapterEntry {
  tensor::ParameterPtr parameter;
  std::string key;                       ///< its name in adapter_model.safetensors
  std::vector<std::string> copies = {};  ///< further names of the same tensor there
  /// Its columns are part `place` of `places` equal ones of the stored matrix.
  int64_t place = 0;
  int64_t places = 1;

  std::vector<int64_t> stored_shape() const;
};
/// A tensor of an adapter that is neither trained nor sharded: the same on every rank.
struct AdapterConstant {
  std::vector<std::string> keys;      ///< where it may be stored; the first found counts
  std::shared_ptr<at::Tensor> value;  ///< fp32, or int32 (positions)
  bool needed = false;                ///< the file must hold it
};

/// Singular triplets of a module's change (AdaLoRA), which may be pruned.
struct ModuleTriplets {
  std::string module;
  tensor::ParameterPtr a, b, e;  ///< [R, I], [O, R], [R, 1]
};

/// A parameter of the base model, whole, fp32.
using ReadBase = std::function<at::Tensor(const tensor::Parameter&)>;
/// A parameter of the adapter, whole.
using ReadAdapter = std::function<at::Tensor(const tensor::Parameter&)>;

/// An adapter attached to a decoder; the decoder must outlive it.
class Adapter {
 public:
  struct State;

  /// Adds the method's parameters to the units that use them (not placed yet) and freezes every
  /// other parameter. ErrorKind::Config when a target matches nothing, naming the nearest module.
  static Adapter attach(model::Decoder& decoder, const AdapterSpec& spec);
  Adapter(Adapter&&) noexcept;
  Adapter& operator=(Adapter&&) noexcept;
  ~Adapter();

  const AdapterSpec& spec() const;
  const model::Decoder& decoder() const;
  /// The linear modules that it changes.
  std::vector<std::string> modules() const;
  /// What its file holds, in order.
  const std::vector<AdapterEntry>& entries() const;
  const std::vector<AdapterConstant>& constants() const;
  /// In the order of units; empty for methods that prune nothing.
  const std::vector<ModuleTriplets>& triplets() const;
  /// Replaces a setting that follows from the run: its file says what was done.
  void settle(const char* setting, core::Json value);
  DropoutKeys& dropout_keys() const;
  /// Elements of its parameters for each token and layer, on average: what its activations take.
  int64_t activation_width() const;
  /// Whether the base model answers when the adapter is off: not when base parameters are trained
  /// or changed with it.
  bool can_switch_off() const;
  bool can_merge() const;

  /// Elements [offset, offset + out.numel()) of the initial value of an adapter parameter: a pure
  /// function of (seed, name, element) and, where the method asks, of the base's weights.
  void initialise(const tensor::Parameter& parameter,
                  uint64_t seed,
                  int64_t offset,
                  at::Tensor out,
                  const ReadBase& base = {}) const;
  /// Whether a base parameter does not start as the files have it (PiSSA and OLoRA take their part
  /// out of it).
  bool changes_base(const tensor::Parameter& parameter) const;
  /// The whole of such a parameter as it starts, fp32.
  at::Tensor starting_base(const tensor::Parameter& parameter,
                           uint64_t seed,
                           const ReadBase& base) const;

  /// What a base parameter is with the adapter in it: `whole` as stored, in fp32; the adapter's
  /// values come from `read`. ErrorKind::Numeric when the result holds a NaN, naming the module.
  at::Tensor merged(const tensor::Parameter& parameter,
                    const at::Tensor& whole,
                    const ReadAdapter& read) const;
  /// Merges into the decoder's weights, in fp32, then one rounding; the adapter is off from then on
  /// and a second call does nothing. All parameters are whole (place_whole). Nothing is changed
  /// when it throws. keep: a copy of the weights before stays, for unmerge().
  void merge(bool keep = false);
  /// Takes the merge back: the same bits as before, from a copy.
  void unmerge();

 private:
  Adapter();
  std::unique_ptr<State> state_;
};

/// While it lives the decoder computes without the adapter. Not across a backward pass.
class AdapterSwitch {
 public:
  explicit AdapterSwitch(Adapter& adapter) : keys_(adapter.dropout_keys()) {
    keys_.adapter_off = true;
  }
  ~AdapterSwitch() { keys_.adapter_off = false; }
  AdapterSwitch(const AdapterSwitch&) = delete;
  AdapterSwitch& operator=(const AdapterSwitch&) = delete;

 private:
  DropoutKeys& keys_;
};

/// Of a new adapter. ErrorKind::Config when an expression of a pattern (rank_pattern, ...) matches
/// none of the modules that it changes, or biases are wanted where there are none.
void require_used_settings(const Adapter& adapter);

/// Makes the base parameters of a decoder with whole weights what they are at the adapter's start
/// (changes_base), for values that continue from there: PiSSA's and OLoRA's unconverted files.
void begin_base(model::Decoder& decoder, const Adapter& adapter);

/// Freezes the parameters whose whole name matches one of the expressions; ErrorKind::Config when
/// one matches none.
void freeze(model::Decoder& decoder, const std::vector<std::string>& expressions);

}  // namespace kamerton::tuning
