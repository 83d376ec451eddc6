// SPDX-License-Identifier: Apache-2.0
// An optimizer as ShardedParameters sees it: what it keeps, and one pass over this rank's parts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/comm/group.h"
#include "kamerton/optim/config.h"

#include "flat_layout.h"

namespace kamerton::optim {

/// One kind of state that lies as the parameters do: a value for every `block` elements.
struct StateKind {
  std::string prefix;  ///< of the names of its tensors: "exp_avg."
  at::ScalarType dtype = at::kFloat;
  int64_t block = 1;
  bool (*in_unit)(const tensor::ParamUnit&) = nullptr;  ///< null: in every unit

  /// Values for so many elements of a part of `unit`.
  int64_t length(const tensor::ParamUnit& unit, int64_t elements) const {
    return in_unit == nullptr || in_unit(unit) ? elements / block : 0;
  }
};

/// State of a parameter that is small and the same on every rank, such as a vector for its rows.
struct SharedKind {
  std::string prefix;
  std::vector<int64_t> shape;  ///< fp32
};
using SharedState = std::unordered_map<const tensor::Parameter*, std::vector<at::Tensor>>;

/// One unit's part; element 0 is element `begin` of the flat buffer. fp32 but for `low`.
struct UpdatePart {
  const tensor::ParamUnit* unit = nullptr;
  const FlatLayout* layout = nullptr;
  int64_t begin = 0;
  at::Tensor param;
  at::Tensor low;                 ///< the compute copy, bf16; undefined: param is its own
  at::Tensor grad;                ///< not clipped yet; its contents may be used up
  std::vector<at::Tensor> state;  ///< by kind, the rule's own
  const std::vector<Segment>* segments = nullptr;
  /// This rank's shard within the part: all of it unless every rank updates the whole (stage 0).
  int64_t own = 0;
  int64_t own_length = 0;
};

/// A slot's elements within [begin, begin + length) of the flat buffer; none: length 0.
SlotPart within(const FlatSlot& slot, int64_t begin, int64_t length);
/// How element `flat` of the flat buffer is treated.
const Treatment& treatment_at(const UpdatePart& part, int64_t flat);

struct UpdateStep {
  int64_t number = 1;  ///< of the update, from 1
  double lr = 0.0;
  double clip = 1.0;
  const comm::Group* shard = nullptr;   ///< ranks that the parts are cut over; null: one
  const SharedState* shared = nullptr;  ///< of every trained parameter of a rule that has any
};

class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  virtual void update(const std::vector<UpdatePart>& parts, const UpdateStep& step) = 0;
};

/// What the configured rule keeps, and after that what is kept beside it: kStart where the distance
/// to the start is minimised, kImportance where it is weighted, kAverage, and what a rank budget
/// needs.
std::vector<StateKind> state_kinds(const OptimConfig& config);
/// What the rule keeps of a parameter on every rank.
std::vector<SharedKind> shared_kinds(const OptimConfig& config, const tensor::Parameter& parameter);
int64_t shared_bytes(const OptimConfig& config, const tensor::Parameter& parameter);
/// Of state_kinds(), the rule's own.
size_t num_rule_kinds(const OptimConfig& config);
inline constexpr const char* kStart = "start.";
inline constexpr const char* kImportance = "importance.";
inline constexpr const char* kAverage = "ema.";
inline constexpr const char* kSensitivity = "sensitivity.";
inline constexpr const char* kUncertainty = "uncertainty.";
/// Parameters and shards start at multiples of this.
int64_t alignment_of(const std::vector<StateKind>& kinds);
/// Of state for `elements` of a part of `unit`.
int64_t state_bytes(const std::vector<StateKind>& kinds,
                    const tensor::ParamUnit& unit,
                    int64_t elements);

/// The rule for parts on this device.
std::unique_ptr<UpdateRule> make_rule(const OptimConfig& config, at::Device device);

}  // namespace kamerton::optim
