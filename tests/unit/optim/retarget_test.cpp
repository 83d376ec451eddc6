// SPDX-License-Identifier: Apache-2.0
// Other parameters are trained from some step on: against a plain run with torch's own optimizer,
// which keeps a step count a parameter.
#include <map>
#include <mutex>

#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"
#include "kamerton/optim/memory_plan.h"
#include "kamerton/optim/sharded_parameters.h"

#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;

constexpr int kSteps = 9;
constexpr int kPhase = 3;  ///< steps between draws

/// The embedding always; of each block one half in even draws, the other one in odd draws.
bool drawn(const tensor::Parameter& parameter, int draw) {
  if (parameter.name.find("embed") != std::string::npos) {
    return true;
  }
  const bool first = parameter.name.ends_with(".up") || parameter.name.ends_with(".norm");
  return first == (draw % 2 == 0);
}

RunOptions options_for(int64_t stage) {
  RunOptions options;
  options.optim = adamw(stage);
  options.steps = kSteps;
  return options;
}

void retarget_to(ShardedParameters& sharded, int draw, StateOnRetarget policy) {
  sharded.retarget([draw](const tensor::Parameter& p) { return drawn(p, draw); }, policy);
}

struct Outcome {
  RunResult run;
  ShardedBytes bytes;
  std::map<std::string, int64_t> counts;
};

Outcome train_drawn(const comm::Group& world, const RunOptions& options, StateOnRetarget policy) {
  TinyNet net(options.net);
  ShardedParameters sharded(
      net.units, groups_of(world, options.replicas), options.optim, options.dtype);
  sharded.load(fill_initial);
  Outcome outcome;
  for (int step = 0; step < options.steps; ++step) {
    if (step % kPhase == 0) {
      retarget_to(sharded, step / kPhase, policy);
    }
    outcome.run.losses.push_back(accumulate(net, sharded, world, options, step));
    outcome.run.norms.push_back(sharded.finish_gradients(options.optim.max_grad_norm).norm);
    sharded.update(step + 1, learning_rate(options.optim, step, options.steps));
  }
  for (const auto& unit : net.units) {
    for (const auto& parameter : unit.parameters) {
      outcome.run.weights[parameter->name] = sharded.fetch(*parameter);
    }
  }
  outcome.bytes = sharded.bytes();
  outcome.counts = sharded.update_counts();
  return outcome;
}

Outcome drawn_on(int ranks, const RunOptions& options, StateOnRetarget policy) {
  std::vector<Outcome> outcomes(ranks);
  comm::run_local(ranks, [&](comm::Group world) {
    outcomes[world.rank()] = train_drawn(world, options, policy);
  });
  for (const Outcome& outcome : outcomes) {
    EXPECT_TRUE(same_bits(outcome.run, outcomes[0].run)) << "ranks differ";
  }
  return outcomes[0];
}

/// A parameter with moments and a step count of its own.
struct Plain {
  tensor::ParameterPtr parameter;
  at::Tensor exp_avg, exp_avg_sq, step;
  void clear() {
    exp_avg = at::zeros_like(parameter->value);
    exp_avg_sq = at::zeros_like(parameter->value);
    step = at::zeros({}, at::kFloat);
  }
  void update(const RunOptions& options, int number, double clip) {
    at::Tensor& value = parameter->value;
    value.mutable_grad().mul_(clip);
    step.add_(1);
    at::_fused_adamw_({value},
                      {value.grad()},
                      {exp_avg},
                      {exp_avg_sq},
                      {},
                      {step},
                      learning_rate(options.optim, number, options.steps),
                      options.optim.beta1,
                      options.optim.beta2,
                      parameter->shape.size() >= 2 ? options.optim.weight_decay : 0.0,
                      options.optim.eps,
                      false,
                      false,
                      {},
                      {});
  }
};

std::vector<Plain> place_plainly(TinyNet& net) {
  tensor::place_whole(net.units, at::kFloat);
  std::vector<Plain> all;
  for (const auto& unit : net.units) {
    for (const auto& parameter : unit.parameters) {
      fill_initial(*parameter, 0, parameter->value.view({-1}));
      all.push_back({parameter, {}, {}, {}});
      all.back().clear();
    }
  }
  return all;
}

/// Before the first step of a draw: state that the policy throws away.
void forget(std::vector<Plain>& all, int draw, StateOnRetarget policy) {
  for (Plain& plain : all) {
    const bool before = draw > 0 && drawn(*plain.parameter, draw - 1);
    const bool woken = drawn(*plain.parameter, draw) && !before;
    if (policy == StateOnRetarget::Drop || (policy == StateOnRetarget::Keep && woken)) {
      plain.clear();
    }
  }
}

double squared_norm(const std::vector<Plain>& all, int draw) {
  double squares = 0.0;
  for (const Plain& plain : all) {
    if (drawn(*plain.parameter, draw)) {
      squares += plain.parameter->value.grad().to(at::kDouble).pow(2).sum().item<double>();
    }
  }
  return squares;
}

/// The same in one process, with torch's optimizer.
RunResult plain_drawn(const RunOptions& options, StateOnRetarget policy) {
  const at::NoGradGuard no_grad;
  TinyNet net(options.net);
  std::vector<Plain> all = place_plainly(net);
  RunResult result;
  for (int step = 0; step < options.steps; ++step) {
    const int draw = step / kPhase;
    if (step % kPhase == 0) {
      forget(all, draw, policy);
    }
    const Batch batch = batch_of(step, options.net.vocabulary);
    {
      const at::AutoGradMode grad_mode(true);
      const auto loss = net.loss(
          nullptr, batch.tokens, batch.targets, 1.0 / static_cast<double>(batch.num_targets));
      torch::autograd::backward({loss}, {});
      result.losses.push_back(loss.item<double>());
    }
    result.norms.push_back(std::sqrt(squared_norm(all, draw)));
    const double clip = std::min(1.0, options.optim.max_grad_norm / (result.norms.back() + 1e-6));
    for (Plain& plain : all) {
      if (drawn(*plain.parameter, draw)) {
        plain.update(options, step, clip);
      }
      plain.parameter->value.mutable_grad().reset();
    }
  }
  for (const Plain& plain : all) {
    result.weights[plain.parameter->name] = plain.parameter->value;
  }
  return result;
}

void expect_close(const RunResult& run, const RunResult& reference, const std::string& what) {
  for (size_t step = 0; step < run.losses.size(); ++step) {
    EXPECT_NEAR(run.losses[step], reference.losses[step], 1e-5 * reference.losses[step]) << what;
    EXPECT_NEAR(run.norms[step], reference.norms[step], 1e-4 * reference.norms[step]) << what;
  }
  EXPECT_LT(largest_difference(run, reference), 5e-5) << what;
}

TEST(Retarget, FollowsAPlainRunAtEveryStageAndPolicy) {
  for (const StateOnRetarget policy :
       {StateOnRetarget::Drop, StateOnRetarget::Keep, StateOnRetarget::Restore}) {
    const RunResult reference = plain_drawn(options_for(0), policy);
    for (const int ranks : {1, 2, 4}) {
      Outcome first;
      for (const int64_t stage : {0, 1, 2, 3}) {
        const Outcome outcome = drawn_on(ranks, options_for(stage), policy);
        const std::string what = "policy " + std::to_string(static_cast<int>(policy)) + " ranks " +
                                 std::to_string(ranks) + " stage " + std::to_string(stage);
        expect_close(outcome.run, reference, what);
        if (stage == 0) {
          first = outcome;
        }
        EXPECT_TRUE(same_bits(outcome.run, first.run)) << what;
      }
    }
  }
}

TEST(Retarget, PoliciesDiffer) {
  const Outcome keep = drawn_on(1, options_for(0), StateOnRetarget::Keep);
  const Outcome drop = drawn_on(1, options_for(0), StateOnRetarget::Drop);
  const Outcome restore = drawn_on(1, options_for(0), StateOnRetarget::Restore);
  EXPECT_FALSE(same_bits(keep.run, drop.run));
  EXPECT_FALSE(same_bits(keep.run, restore.run));
  EXPECT_EQ(keep.counts.at("embed.weight"), 9);
  EXPECT_EQ(keep.counts.at("layers.0.up"), 3);
  EXPECT_FALSE(keep.counts.contains("layers.0.down"));
  EXPECT_EQ(restore.counts.at("layers.0.up"), 6);
  EXPECT_EQ(restore.counts.at("layers.0.down"), 3);
  EXPECT_EQ(drop.counts.at("embed.weight"), 3);
}

TEST(Retarget, OnlyWhatIsDrawnHasGradientsAndStateToTheByte) {
  for (const int64_t stage : {0, 1, 2, 3}) {
    const RunOptions options = options_for(stage);
    const Outcome keep = drawn_on(4, options, StateOnRetarget::Keep);
    TinyNet net(options.net);
    int64_t sleeping = 0;
    for (auto& unit : net.units) {
      for (auto& parameter : unit.parameters) {
        parameter->trainable = drawn(*parameter, 2);
      }
    }
    PlanRequest request;
    request.units = net.units;
    request.optim = options.optim;
    request.shard = 4;
    const MemoryPlan plan = plan_memory(request);
    EXPECT_EQ(plan.optimizer_state, keep.bytes.optimizer_state) << stage;
    EXPECT_EQ(plan.gradients, keep.bytes.gradients) << stage;
    EXPECT_EQ(plan.parameters, keep.bytes.parameters) << stage;
    EXPECT_EQ(plan.reduced_per_step, keep.bytes.reduced_per_step) << stage;
    request.units = TinyNet(options.net).units;
    EXPECT_LT(plan.reduced_per_step, plan_memory(request).reduced_per_step);
    const Outcome restore = drawn_on(4, options, StateOnRetarget::Restore);
    for (const auto& unit : net.units) {
      for (const auto& parameter : unit.parameters) {
        sleeping += parameter->trainable ? 0 : (parameter->numel() + 3) / 4 * 8;
      }
    }
    EXPECT_EQ(restore.bytes.optimizer_state, keep.bytes.optimizer_state + sleeping) << stage;
  }
}

/// Steps [from, to), with the draws that fall into them.
RunResult steps(TinyNet& net,
                ShardedParameters& sharded,
                const comm::Group& world,
                const RunOptions& options,
                StateOnRetarget policy,
                std::pair<int, int> range) {
  RunResult result;
  for (int step = range.first; step < range.second; ++step) {
    if (step % kPhase == 0) {
      retarget_to(sharded, step / kPhase, policy);
    }
    result.losses.push_back(accumulate(net, sharded, world, options, step));
    result.norms.push_back(sharded.finish_gradients(options.optim.max_grad_norm).norm);
    sharded.update(step + 1, learning_rate(options.optim, step, options.steps));
  }
  return result;
}

/// What a checkpoint holds.
struct Saved {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, int64_t> counts;

  void add(const std::vector<StateSlice>& slices) {
    for (const StateSlice& slice : slices) {
      int64_t numel = 1;
      for (const int64_t extent : slice.shape) {
        numel *= extent;
      }
      tensors.try_emplace(slice.key, at::full({numel}, std::nan(""), slice.data.options()))
          .first->second.narrow(0, slice.offset, slice.data.numel())
          .copy_(slice.data);
    }
  }
};

constexpr int kCut = 5;  ///< within the second draw

Saved save_at_cut(const RunOptions& options, StateOnRetarget policy) {
  Saved saved;
  std::mutex mutex;
  comm::run_local(2, [&](comm::Group world) {
    TinyNet net(options.net);
    ShardedParameters sharded(net.units, groups_of(world, 1), options.optim, options.dtype);
    sharded.load(fill_initial);
    steps(net, sharded, world, options, policy, {0, kCut});
    const auto slices = sharded.owned_slices();
    const std::lock_guard lock(mutex);
    saved.add(slices);
    saved.counts = sharded.update_counts();
  });
  for (const auto& [key, tensor] : saved.tensors) {
    EXPECT_FALSE(at::isnan(tensor).any().item<bool>()) << key << " is not covered";
  }
  return saved;
}

RunResult resume_at_cut(const RunOptions& options, StateOnRetarget policy, const Saved& saved) {
  std::vector<RunResult> tails(2);
  comm::run_local(2, [&](comm::Group world) {
    TinyNet net(options.net);
    ShardedParameters sharded(net.units, groups_of(world, 1), options.optim, options.dtype);
    sharded.load(fill_initial);
    retarget_to(sharded, 0, policy);
    retarget_to(sharded, 1, policy);
    for (auto slice : sharded.slices_to_load()) {
      slice.data.copy_(saved.tensors.at(slice.key).narrow(0, slice.offset, slice.data.numel()));
    }
    sharded.after_load();
    sharded.set_update_counts(saved.counts, kCut);
    tails[world.rank()] = steps(net, sharded, world, options, policy, {kCut, kSteps});
  });
  return tails[0];
}

TEST(Retarget, ResumesWithTheSameBitsAfterADraw) {
  for (const StateOnRetarget policy : {StateOnRetarget::Keep, StateOnRetarget::Restore}) {
    for (const int64_t stage : {0, 1, 3}) {
      const RunOptions options = options_for(stage);
      const RunResult whole = drawn_on(2, options, policy).run;
      const RunResult tail = resume_at_cut(options, policy, save_at_cut(options, policy));
      EXPECT_EQ(tail.losses, std::vector<double>(whole.losses.begin() + kCut, whole.losses.end()));
      EXPECT_EQ(tail.norms, std::vector<double>(whole.norms.begin() + kCut, whole.norms.end()));
    }
  }
}

TEST(Retarget, HalfPrecisionStagesAgree) {
  RunOptions options = options_for(0);
  options.dtype = at::kBFloat16;
  const Outcome first = drawn_on(2, options, StateOnRetarget::Restore);
  for (const int64_t stage : {1, 2, 3}) {
    options.optim.zero_stage = stage;
    EXPECT_TRUE(same_bits(drawn_on(2, options, StateOnRetarget::Restore).run, first.run)) << stage;
  }
  EXPECT_LT(first.run.losses.back(), first.run.losses.front());
}

}  // namespace
}  // namespace kamerton::optim
