// SPDX-License-Identifier: Apache-2.0
// Parameters in units: what is gathered, reduced and released together (a transformer block, the
// embedding, the head).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace kamerton::tensor {

/// One parameter. `value` is a leaf variable of shape `shape`, placed by whoever owns memory:
/// `place_whole` for a plain model, optim::ShardedParameters for ZeRO. Modules read `value` at the
/// time of use, never keep a copy.
struct Parameter {
  std::string name;  ///< the Hugging Face name: "model.layers.0.self_attn.q_proj.weight"
  std::vector<int64_t> shape;
  bool trainable = true;
  bool packed = false;   ///< a weight in few bits: frozen, `value` holds its bytes (uint8)
  bool adapter = false;  ///< belongs to an adapter, not to the base weights (saved in PEFT form)
  at::Tensor value;      ///< undefined until placed; requires_grad == trainable once placed
  /// fp32 accumulator of the gradient of `shape`, defined between UnitHooks::before_backward and
  /// after_backward (trainable only). Kernels add into it directly; autograd adds into
  /// value.grad(), which is the same memory.
  at::Tensor gradient;

  /// Where a kernel adds this parameter's gradient: `gradient` when hooks defined it, else
  /// value.grad(), made here as fp32 zeros when it is missing. Only for trainable parameters.
  at::Tensor accumulator();

  int64_t numel() const;
};
using ParameterPtr = std::shared_ptr<Parameter>;

/// Called by the model around the use of a unit's parameters. The order of calls is the same on
/// every rank (collectives happen inside). Implementations: none (plain model),
/// optim::ShardedParameters (ZeRO).
///
/// Sequences of one use: forward pair, then later the backward pair; with checkpointing the same
/// (the backward pair brackets recomputation and backward). Two shorter forms:
/// - no backward pair when grad mode is off, or when the unit has no trainable parameter and its
/// input needs no
///   gradient (a frozen embedding; frozen blocks below the first adapter);
/// - ONLY the backward pair, during the forward pass, for the fused head + loss (`run_unit_fused`):
/// its gradients are
///   computed together with the loss, so the use is over when the pair closes.
/// before_forward / before_backward never nest: the pair of one use closes before the next opens.
class UnitHooks {
 public:
  virtual ~UnitHooks() = default;
  virtual void before_forward(int unit) = 0;  ///< afterwards all `value`s of the unit can be read
  virtual void after_forward(int unit) = 0;   ///< the unit may be released
  virtual void before_backward(
      int unit) = 0;  ///< `value`s readable, gradients have somewhere to go
  virtual void after_backward(
      int unit) = 0;  ///< gradients of this use are complete: reduce, release
};

/// A unit is used one or more times in a step (a tied embedding twice); each use is bracketed by
/// the hooks.
struct ParamUnit {
  int index = 0;     ///< position in the model's list: the order of forward use
  std::string name;  ///< "embed", "layers.0", ..., "head"
  std::vector<ParameterPtr> parameters;

  /// Sum over the parameters with this trainability, but for packed ones.
  int64_t numel(bool trainable) const;
};

/// Runs `body` (inputs -> output) as one use of `unit`, with hooks placed in forward and in
/// backward. checkpoint = true: activations inside are dropped and recomputed in backward
/// (bit-equal loss and gradients). hooks may be null. `input` must be floating point; it is made to
/// require grad when grad mode is on and the unit has trainable parameters, so that the backward
/// bracket fires whenever there is a backward. `unit` and `hooks` must outlive the backward; `body`
/// is kept (copied) until then with checkpoint = true.
at::Tensor run_unit(UnitHooks* hooks,
                    const ParamUnit& unit,
                    const at::Tensor& input,
                    bool checkpoint,
                    const std::function<at::Tensor(const at::Tensor&)>& body);

/// Runs `body` with values readable and, when grad mode is on, gradient accumulators defined: the
/// body may add into accumulator() at once. Grad mode on: before_backward, body, after_backward.
/// Off: before_forward, body, after_forward.
void run_unit_fused(UnitHooks* hooks, const ParamUnit& unit, const std::function<void()>& body);

/// Gives every parameter its own whole tensor (for generate, eval, export of a small model, tests).
/// Contents are undefined.
void place_whole(const std::vector<ParamUnit>& units,
                 at::ScalarType dtype,
                 at::Device device = at::kCPU);

}  // namespace kamerton::tensor
