// SPDX-License-Identifier: Apache-2.0
// Low-rank adapters on the linear modules of a decoder (arXiv 2106.09685; rank-stabilised:
// 2312.03732).
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kamerton/model/decoder.h"
#include "kamerton/tuning/config.h"

namespace kamerton::tuning {

/// What one adapter is, apart from its tensors: the part of PEFT's adapter_config.json that changes
/// the result.
struct LoraSpec {
  int64_t r = 8;
  double alpha = 8;
  double dropout = 0;
  bool use_rslora = false;
  std::vector<std::string>
      targets;  ///< module names, "all-linear", or one "re:" expression (full match)
  std::vector<std::pair<std::string, int64_t>>
      rank_pattern;  ///< regular expression on the end of a module's name -> r
  std::vector<std::pair<std::string, double>> alpha_pattern;  ///< the same -> alpha
  std::vector<int64_t> layers_to_transform;                   ///< empty: all

  static LoraSpec from(const LoraConfig& config);
  bool targets_module(const std::string& module) const;
  int64_t rank_of(const std::string& module) const;
  /// alpha / r, or alpha / sqrt(r).
  double scale_of(const std::string& module) const;
};

/// Tells dropout which tokens it sees, so that the mask is a pure function of (seed, token, layer):
/// the same in recomputation, on any number of ranks and in any packing. Set before a micro-batch;
/// empty keys: no dropout (evaluation).
struct DropoutKeys {
  uint64_t seed = 0;
  at::Tensor keys_N;         ///< int64, one a token
  bool adapter_off = false;  ///< the base model alone answers: see AdapterSwitch
};

/// One adapted module.
struct LoraPair {
  model::Linear* linear;
  tensor::ParameterPtr a;  ///< "<module>.lora_A.weight" [r, in]
  tensor::ParameterPtr b;  ///< "<module>.lora_B.weight" [out, r]
  double scale;
};

/// An adapter attached to a decoder; the decoder must outlive it.
class Lora {
 public:
  /// Adds A and B to the units of the targeted modules (not placed yet) and freezes every other
  /// parameter. Throws ErrorKind::Config when a target matches no module, naming the nearest ones.
  static Lora attach(model::Decoder& decoder, const LoraSpec& spec);

  const LoraSpec& spec() const { return spec_; }
  const std::vector<LoraPair>& pairs() const { return pairs_; }
  DropoutKeys& dropout_keys() { return *keys_; }

  /// The initial value of elements [offset, offset + out.numel()) of an adapter parameter: A
  /// uniform in
  /// +-1/sqrt(in) (kaiming_uniform with a = sqrt 5, as PEFT), B zero. A pure function of (seed,
  /// name, element).
  static void initialise(const tensor::Parameter& parameter,
                         uint64_t seed,
                         int64_t offset,
                         at::Tensor out);

  /// W += scale B A for every pair, in fp32, then one rounding; afterwards the adapter is detached.
  /// All parameters are whole (place_whole). Throws ErrorKind::Numeric when the update holds a NaN,
  /// naming the module.
  void merge();

 private:
  LoraSpec spec_;
  std::vector<LoraPair> pairs_;
  std::shared_ptr<DropoutKeys> keys_;
};

/// While it lives the decoder computes without the adapter. Not across a backward pass.
class AdapterSwitch {
 public:
  explicit AdapterSwitch(Lora& lora) : keys_(lora.dropout_keys()) { keys_.adapter_off = true; }
  ~AdapterSwitch() { keys_.adapter_off = false; }
  AdapterSwitch(const AdapterSwitch&) = delete;
  AdapterSwitch& operator=(const AdapterSwitch&) = delete;

 private:
  DropoutKeys& keys_;
};

/// Freezes the parameters whose whole name matches one of the expressions; ErrorKind::Config when
/// one matches none.
void freeze(model::Decoder& decoder, const std::vector<std::string>& expressions);

}  // namespace kamerton::tuning
