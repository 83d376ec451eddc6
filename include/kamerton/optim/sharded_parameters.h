// SPDX-License-Identifier: Apache-2.0
// ZeRO 0-3 as one design: each unit is two flat buffers (trainable, frozen), cut evenly over the
// shard group. Paper: arXiv 1910.02054. Stage 1 shards the optimizer state, 2 the gradients too, 3
// the parameters too.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/comm/group.h"
#include "kamerton/optim/config.h"
#include "kamerton/optim/rank_budget.h"
#include "kamerton/tensor/param_unit.h"

namespace kamerton::optim {

/// The two groups that a rank belongs to: a model is cut over `shard` and repeated over
/// `replicate`.
struct ShardGroups {
  comm::Group shard;
  comm::Group replicate;
};

struct GradientReport {
  double norm = 0.0;   ///< global 2-norm before clipping; NaN or infinite when not finite
  bool finite = true;  ///< the same on all ranks; false: do not call update(), the step is skipped
  double clip_factor = 1.0;    ///< min(1, max_norm / (norm + 1e-6)), as torch's clip_grad_norm_
  double penalty = 0.0;        ///< of the distance to the start (OptimConfig::l2, ewc)
  double orthogonality = 0.0;  ///< penalty of a rank budget
};

/// A piece of training state: elements [offset, offset + data.numel()) of the flattened tensor
/// `key` of `shape`.
struct StateSlice {
  std::string key;  ///< "model.<name>", "exp_avg.<name>", "momentum.<name>", ...
  std::vector<int64_t> shape;
  int64_t offset = 0;
  at::Tensor data;  ///< 1-D, contiguous, a view of the state itself; its dtype is the state's dtype
};

/// Bytes held by the engine on this rank, counted by itself.
struct ShardedBytes {
  int64_t parameters = 0;       ///< persistent, compute dtype
  int64_t gradients = 0;        ///< persistent
  int64_t optimizer_state = 0;  ///< moments and fp32 masters
  int64_t transient = 0;        ///< gathered parameters and unreduced gradients of units in use now
  int64_t transient_peak = 0;   ///< the most that `transient` has been
  int64_t largest_unit_parameters = 0;  ///< whole unit in the compute dtype
  int64_t largest_unit_gradients = 0;   ///< whole unit in fp32
  /// Gradients that this rank gave to reductions in the last step: the input of each reduce-scatter
  /// (stage 0: all-reduce), 0 without other ranks.
  int64_t reduced_per_step = 0;
};

/// What becomes of the optimizer's state when other parameters are trained from now on.
enum class StateOnRetarget {
  Drop,     ///< every parameter starts anew
  Keep,     ///< those that stay keep theirs; what wakes up starts anew
  Restore,  ///< as Keep, and state that falls asleep is kept (sharded) until its parameter wakes up
};

/// Owns the memory of all parameters, their gradients and the optimizer state of one rank.
///
/// A step: for each micro-batch begin_micro_batch(last), forward, backward (the model calls the
/// hooks); then finish_gradients(); then, when finite, update(). Gradients are sums over ranks and
/// micro-batches: the loss must already be divided by the global number of target tokens. All
/// member functions but bytes(), stage() and the slices' getters are collective over both groups,
/// called by all ranks in the same order.
///
/// Same bits at any stage for the same groups with one micro-batch a step; with several, stages 2
/// and 3 reduce each micro-batch and stages 0 and 1 the sum, which differ by rounding. Not
/// thread-safe.
class ShardedParameters final : public tensor::UnitHooks {
 public:
  /// Places every parameter of `units` (contents undefined until load()). compute: at::kFloat, or
  /// at::kBFloat16 with fp32 masters for trainable parameters. The state is allocated by the first
  /// micro-batch, so evaluation does not pay for it. Throws ErrorKind::Config for a bad stage,
  /// ErrorKind::Internal for a parameter listed twice. Everything lies on `device`, whose tensors
  /// the groups must take; load() asks for tensors there.
  ShardedParameters(const std::vector<tensor::ParamUnit>& units,
                    const ShardGroups& groups,
                    const OptimConfig& config,
                    at::ScalarType compute,
                    at::Device device = at::kCPU);
  ~ShardedParameters() override;
  ShardedParameters(const ShardedParameters&) = delete;
  ShardedParameters& operator=(const ShardedParameters&) = delete;

  /// Writes elements [offset, offset + out.numel()) of the flattened parameter into `out` (1-D;
  /// fp32 for trainable parameters, the compute dtype for frozen ones, bytes for packed ones;
  /// out.copy_() converts).
  using Fill = std::function<void(const tensor::Parameter&, int64_t offset, at::Tensor out)>;
  /// Each rank is asked for its own shard only; the rest comes from the others.
  void load(const Fill& fill);

  void before_forward(int unit) override;
  void after_forward(int unit) override;
  void before_backward(int unit) override;
  void after_backward(int unit) override;

  /// Told elements [offset, offset + gradient.numel()) of a trainable parameter: their fp32 values
  /// and their gradient, which it may change.
  using Correction = std::function<void(
      const tensor::Parameter&, int64_t offset, const at::Tensor& values, at::Tensor gradient)>;
  /// From now on finish_gradients() lets it change the reduced gradients before they are measured
  /// and clipped (proximal terms, control variates); empty: none. Every rank must make the same
  /// change to the same element: ranks without ZeRO each hold all of them.
  void set_correction(Correction correction);

  /// Announces a forward + backward. last: the last one of this step (stages 0 and 1 reduce then).
  void begin_micro_batch(bool last);
  /// Reduces what is left and measures. max_norm <= 0: no clipping. local_finite: false when this
  /// rank saw a loss that is not finite; then all ranks skip. The factor is applied inside
  /// update().
  GradientReport finish_gradients(double max_norm, bool local_finite = true);
  /// Differential privacy for records, instead of begin_micro_batch() and finish_gradients(): for
  /// each example of this rank begin_example(), forward, backward, add_clipped_example(); then
  /// finish_clipped(). Every rank runs as many examples (stage 3 gathers for each); one without
  /// targets adds nothing. Gradients stay whole on every rank until finish_clipped(), at every
  /// stage: 8 bytes a trainable element. arXiv 1607.00133, with a fixed denominator.
  void begin_example();
  /// Scales the example's gradient to a 2-norm of at most max_norm and adds it. Returns the norm
  /// before; an example whose norm is not finite adds nothing. Local to the rank.
  double add_clipped_example(double max_norm);
  /// Adds noise to elements [offset, offset + out.numel()) of the flattened parameter's gradient
  /// (1-D, fp32, in host memory).
  using AddNoise = std::function<void(const tensor::Parameter&, int64_t offset, at::Tensor out)>;
  /// Sums the clipped gradients of all ranks, has noise added once to each element of the sum (by
  /// the element's owner; the same on those that hold copies), multiplies by `scale`, measures.
  GradientReport finish_clipped(const AddNoise& add_noise, double scale, double max_norm);

  /// Applies the optimizer. update_number counts from 1 (bias correction); lr as given by
  /// learning_rate(). step: of the run, for a rank budget.
  void update(int64_t update_number, double lr, int64_t step = 0);

  /// From now on updates prune what it says; with OptimConfig::sensitivity, of parameters that are
  /// trained here. Between steps. What has been learned so far stays.
  void set_rank_budget(RankBudget budget);
  /// With a rank budget: triplets that the last pruning of this process left, all before it.
  std::optional<int64_t> triplets_left() const;

  /// What this rank has to write so that every element of the state is written once over all ranks.
  /// By default without frozen parameters (which are in the base model's files) unless they were
  /// trained before a retarget(); "model.<name>" of those is in the compute dtype.
  std::vector<StateSlice> owned_slices(bool include_frozen = false);
  /// What this rank has to fill; call after_load() when done. Any stage, world size and compute
  /// dtype loads what another one has saved with the same bits.
  std::vector<StateSlice> slices_to_load(bool include_frozen = false);
  /// Shares loaded shards with the ranks that hold them whole and rounds masters into the compute
  /// copies.
  void after_load(bool include_frozen = false);

  /// From now on the parameters for which `trainable` holds are trained, no others; the flags of
  /// the units' parameters change. Values stay, but for the rounding to the compute type of what is
  /// no longer trained. Between steps. One unit at a time is whole.
  void retarget(const std::function<bool(const tensor::Parameter&)>& trainable,
                StateOnRetarget policy);
  /// Updates that each parameter has had, by name, where that differs from parameter to parameter
  /// (after retarget()); empty otherwise. Part of what is saved beside the slices.
  std::map<std::string, int64_t> update_counts() const;
  /// Takes them back after the same calls of retarget(); `updates`: of the run so far.
  void set_update_counts(const std::map<std::string, int64_t>& counts, int64_t updates);
  /// The optimizer starts anew, as at construction; the start that distance is measured from stays.
  void reset_state();
  /// Distance to the start (OptimConfig::l2, ewc) is measured from the weights as they are now. At
  /// first it is from what they are at the first micro-batch.
  void anchor_here();
  /// Sets each element's importance to the mean over examples of the squared gradient (the diagonal
  /// of the empirical Fisher information): pass(i), i = 0 ... passes - 1, runs forward and backward
  /// of one example on each rank, whose loss is -log p(example), 0 on ranks that have none left;
  /// pass(0) is run once more before. `examples`: of all ranks.
  void measure_importance(int64_t passes,
                          int64_t examples,
                          const std::function<void(int64_t)>& pass);

  /// The whole parameter on every rank, fp32 for trainable ones, the compute dtype for frozen ones;
  /// one at a time.
  at::Tensor fetch(const tensor::Parameter& parameter);

  ShardedBytes bytes() const;
  int stage() const;  ///< in force: 0 when the shard group has one rank

 private:
  struct State;
  GradientReport measure(double max_norm, bool local_finite);
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::optim
