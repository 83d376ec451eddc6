// SPDX-License-Identifier: Apache-2.0
// What ShardedParameters holds; private to src/optim. Behaviour is in
// sharded_{parameters,gradients,update,state}.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "kamerton/optim/sharded_parameters.h"

#include "flat_buffer.h"
#include "flat_layout.h"
#include "travel_order.h"
#include "treatments.h"
#include "update_rule.h"

namespace kamerton::optim {

/// The values of a unit that are held alike. `whole` has memory always below stage 3, while in use
/// in stage 3.
struct UnitValues {
  FlatLayout layout;
  FlatBuffer whole;    ///< compute dtype
  at::Tensor shard;    ///< this rank's part: a view of `whole` below stage 3, own memory in stage 3
  comm::Work arrival;  ///< of a gather under way
};

/// Gradients and optimizer state of a unit's trainable parameters. "Part" is what this rank
/// updates: all of the flat buffer in stage 0, its shard otherwise.
struct UnitTraining {
  FlatBuffer gradients;  ///< fp32, whole: persistent in stages 0 and 1, during a backward else
  std::vector<at::Tensor> gradient_views;  ///< by slot, over `gradients`
  FlatBuffer late_gradients;  ///< stages 0 and 1: of a further use after the first was reduced
  FlatBuffer clipped;  ///< records' privacy: fp32, whole, the sum of clipped gradients of this step
  at::Tensor gradient_part;  ///< reduced
  at::Tensor master;         ///< fp32 part; undefined in fp32 (the values are their own master)
  std::vector<at::Tensor> moments;  ///< parts, one a kind of state
  std::vector<Segment> segments;
  bool touched = false;  ///< has gradients of this step
  bool reduced = false;  ///< they are reduced (stages 0 and 1)
  int uses = 0;          ///< backward passes of this example (while importance is measured)
};

/// One kind of state over the part; `begin` is the part's first element in the flat buffer.
struct NamedPart {
  std::string prefix;  ///< "model.", "exp_avg.", ...
  at::Tensor part;
  int64_t begin = 0;
  int64_t block = 1;  ///< elements of the flat buffer a value
};

/// Optimizer state of a parameter that is not trained now: this rank's piece of each kind, elements
/// [rank * n, (rank + 1) * n) of the flattened parameter, padded.
struct Sleeping {
  int64_t updates = 0;  ///< that it has had
  std::vector<at::Tensor> pieces;
};

struct UnitStore {
  tensor::ParamUnit unit;
  UnitValues trainable;
  UnitValues frozen;
  UnitValues packed;  ///< bytes
  UnitTraining training;
  int users = 0;          ///< brackets open now
  bool gathered = false;  ///< stage 3: whole, or on its way

  std::array<UnitValues*, 3> values() { return {&trainable, &frozen, &packed}; }
  std::array<const UnitValues*, 3> values() const { return {&trainable, &frozen, &packed}; }
};

/// Of fp32 host memory, in blocks: the bits do not depend on the number of threads.
double blocked_sum_of_squares(const at::Tensor& values);

struct ShardedParameters::State {
  State(const ShardGroups& shard_groups,
        const OptimConfig& optim,
        at::ScalarType dtype,
        at::Device where,
        const std::vector<tensor::ParamUnit>& all_units);

  ShardGroups groups;
  comm::Group gather_group;  ///< stage 3: gathers ahead have their own communicator, reductions may
                             ///< overtake them
  OptimConfig config;
  at::ScalarType compute;
  at::Device device;
  int stage;
  std::vector<StateKind> kinds;
  std::unique_ptr<UpdateRule> rule;
  Treatments treatments;
  std::vector<UnitStore> units;
  std::unordered_map<const tensor::Parameter*, std::pair<size_t, const FlatSlot*>> places;
  /// Since the first retarget(): updates before a parameter's first (absent: 0), parameters that
  /// were ever trained, state of those that sleep.
  std::unordered_map<const tensor::Parameter*, int64_t> born;
  std::unordered_set<const tensor::Parameter*> once_trained;
  std::unordered_map<const tensor::Parameter*, Sleeping> sleeping;
  int64_t updates_done = 0;
  SharedState shared;  ///< the rule's, beside the parts
  TravelOrder travel;
  Correction correction;
  std::optional<RankBudget> budget;
  int64_t triplets_left = 0;  ///< after the last pruning
  bool in_step = false;       ///< between the first begin_micro_batch and finish_gradients
  bool last_micro_batch = false;
  bool backward_expected = false;
  bool by_example = false;   ///< in a step whose gradients are clipped example by example
  bool state_ready = false;  ///< moments are allocated
  /// While importance is measured: gradients are squared instead of summed; Learning: thrown away.
  enum class Squaring { Off, Learning, On } squaring = Squaring::Off;
  double clip_factor = 1.0;
  int64_t transient = 0;
  int64_t transient_peak = 0;
  int64_t reduced = 0;  ///< bytes of gradients given to reductions since the step began

  bool master_apart() const { return compute != at::kFloat; }
  /// fp32 on the device: gradients, masters, moments.
  at::TensorOptions wide() const { return at::TensorOptions(device).dtype(at::kFloat); }
  /// The first element of the flat buffer in this rank's part, and how many there are.
  int64_t part_begin(const UnitValues& values) const;
  int64_t part_length(const UnitValues& values) const;
  /// fp32 weights of the part that the optimizer changes.
  at::Tensor master_part(UnitStore& store) const;
  /// This rank's shard within a tensor over the part.
  at::Tensor shard_of_part(const at::Tensor& part,
                           const UnitValues& values,
                           int64_t block = 1) const;

  /// Gradients gather in whole buffers, over several backward passes.
  bool keeps_whole() const { return stage < 2 || by_example || squaring != Squaring::Off; }
  void check_stray_gradients();
  double example_sum_of_squares();

  void fill(FlatBuffer& buffer);
  void drop(FlatBuffer& buffer);

  void launch_gather(UnitStore& store);
  void finish_gather(UnitStore& store);
  void release(UnitStore& store);
  void use(int unit, int next);
  void settle();

  void expose_gradients(UnitStore& store);
  void hide_gradients(UnitStore& store);
  void reduce(UnitStore& store);
  void reduce_leftovers(UnitStore& store);
  void correct(UnitStore& store);
  double local_sum_of_squares();
  std::vector<UpdatePart> update_parts();

  void place_unit(UnitStore& store);
  void index_places();
  void retarget_unit(UnitStore& store,
                     const std::function<bool(const tensor::Parameter&)>& trainable,
                     StateOnRetarget policy);
  void put_to_sleep(const UnitStore& old, size_t kind, const at::Tensor& whole);
  at::Tensor awaken(const tensor::Parameter& parameter, size_t kind) const;
  void move_state(UnitStore& store, const UnitStore& old, StateOnRetarget policy);
  at::Tensor gather_part(const at::Tensor& part, const UnitValues& values) const;
  void fill_values(UnitStore& store, UnitStore& old);
  void note_birth(const tensor::Parameter& parameter, bool was_trained, StateOnRetarget policy);
  void treat(UnitStore& store);
  bool is_saved(const tensor::Parameter& parameter, bool include_frozen) const;

  at::Tensor state_part(const UnitStore& store, const char* kind) const;
  void reset_to_values(const char* kind);
  double add_penalties();
  void update_average();
  double add_orthogonality();
  std::vector<at::Tensor> copies_of_gradients() const;
  void learn_sensitivity(const std::vector<at::Tensor>& gradients);
  at::Tensor triplet_scores();
  void prune_triplets(int64_t kept);
  void square(UnitStore& store);

  void prepare_state();
  std::vector<NamedPart> named_parts(UnitStore& store) const;
  std::vector<StateSlice> slices(bool include_frozen, int share, int whole);
  void append_shared(std::vector<StateSlice>& slices) const;
  void append_sleeping(std::vector<StateSlice>& slices, int share, int whole);
  at::Tensor assemble(UnitStore& store, const FlatSlot& slot) const;
  void share_values(UnitValues& values);
  void share_part(const at::Tensor& part, const UnitValues& values, int64_t block = 1);
};

}  // namespace kamerton::optim
