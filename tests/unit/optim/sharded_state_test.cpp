// SPDX-License-Identifier: Apache-2.0
// What is saved by any stage and world size loads into any other with the same bits, and training
// goes on from there.
#include <set>

#include <gmock/gmock.h>

#include "kamerton/comm/local_group.h"
#include "kamerton/optim/sharded_parameters.h"

#include "unit/optim/tiny_net.h"

namespace kamerton::optim {
namespace {

using namespace testing;

/// Whole tensors by key, and how often each element was written.
struct Snapshot {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, at::Tensor> written;
};

void add_slices(Snapshot& snapshot, const std::vector<StateSlice>& slices) {
  for (const auto& slice : slices) {
    int64_t numel = 1;
    for (const int64_t extent : slice.shape) {
      numel *= extent;
    }
    auto& whole = snapshot.tensors.try_emplace(slice.key, at::zeros({numel}, slice.data.options()))
                      .first->second;
    auto& count =
        snapshot.written.try_emplace(slice.key, at::zeros({numel}, at::kInt)).first->second;
    whole.narrow(0, slice.offset, slice.data.numel()).copy_(slice.data);
    count.narrow(0, slice.offset, slice.data.numel()).add_(1);
  }
}

void fill_slices(const Snapshot& snapshot, const std::vector<StateSlice>& slices) {
  for (auto slice : slices) {
    slice.data.copy_(snapshot.tensors.at(slice.key).narrow(0, slice.offset, slice.data.numel()));
  }
}

struct Place {
  int ranks = 1;
  int replicas = 1;
  int64_t stage = 0;
};

RunOptions options_at(const Place& place,
                      at::ScalarType dtype,
                      const std::string& algorithm = "adamw") {
  RunOptions options;
  options.optim = adamw(place.stage);
  options.optim.algorithm = algorithm;
  options.dtype = dtype;
  options.replicas = place.replicas;
  return options;
}

/// Trains `steps` from `from` (null: the initial weights) and returns all state.
Snapshot run(const Place& place,
             const RunOptions& options,
             const Snapshot* from,
             int first_step,
             int steps,
             bool frozen = false) {
  Snapshot snapshot;
  std::mutex mutex;
  comm::run_local(place.ranks, [&](comm::Group world) {
    TinyNet net(options.net);
    ShardedParameters sharded(
        net.units, groups_of(world, place.replicas), options.optim, options.dtype);
    sharded.load(fill_initial);
    if (from != nullptr) {
      fill_slices(*from, sharded.slices_to_load(frozen));
      sharded.after_load(frozen);
    }
    for (int step = first_step; step < first_step + steps; ++step) {
      accumulate(net, sharded, world, options, step);
      sharded.finish_gradients(1.0);
      sharded.update(step + 1, 1e-3);
    }
    const std::lock_guard lock(mutex);
    add_slices(snapshot, sharded.owned_slices(frozen));
  });
  return snapshot;
}

void expect_equal(const Snapshot& a, const Snapshot& b, const std::string& what) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size()) << what;
  for (const auto& [key, value] : a.tensors) {
    EXPECT_TRUE(at::equal(value, b.tensors.at(key))) << what << " " << key;
  }
}

const std::vector<Place> kPlaces = {{1, 1, 0},
                                    {4, 1, 0},
                                    {4, 1, 1},
                                    {4, 1, 2},
                                    {4, 1, 3},
                                    {2, 1, 0},
                                    {2, 1, 1},
                                    {2, 1, 2},
                                    {2, 1, 3},
                                    {3, 1, 3},
                                    {4, 2, 1},
                                    {4, 2, 3}};

std::string name_of(const Place& place) {
  return std::to_string(place.ranks) + " ranks, " + std::to_string(place.replicas) +
         " replicas, stage " + std::to_string(place.stage);
}

TEST(ShardedState, EveryElementIsOwnedOnce) {
  for (const auto& place : kPlaces) {
    RunOptions options = options_at(place, at::kFloat);
    options.net.adapters = true;
    for (const bool frozen : {false, true}) {
      const Snapshot snapshot = run(place, options, nullptr, 0, 1, frozen);
      for (const auto& [key, count] : snapshot.written) {
        EXPECT_TRUE(count.eq(1).all().item<bool>()) << key << " with " << name_of(place);
      }
      const size_t trained = 2 * 3;  // two factors in each of three blocks, each with two moments
      EXPECT_EQ(snapshot.tensors.size(), frozen ? trained * 3 + 1 + 4 * 3 : trained * 3)
          << name_of(place);
    }
  }
}

TEST(ShardedState, LoadsAtAnyStageAndSizeWithTheSameBits) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Place origin{1, 1, 0};
    const Snapshot saved = run(origin, options_at(origin, dtype), nullptr, 0, 3);
    EXPECT_GT(saved.tensors.at("exp_avg_sq.layers.1.up").max().item<float>(), 0.0F);
    for (const auto& second : kPlaces) {
      const Snapshot moved = run(second, options_at(second, dtype), &saved, 0, 0);
      expect_equal(moved, saved, "1 rank -> " + name_of(second));
      for (const auto& third : kPlaces) {
        if (third.ranks == 2) {
          expect_equal(run(third, options_at(third, dtype), &moved, 0, 0),
                       saved,
                       name_of(second) + " -> " + name_of(third));
        }
      }
    }
  }
}

TEST(ShardedState, TrainingGoesOnFromItBitForBit) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& place : kPlaces) {
      const auto options = options_at(place, dtype);
      const Snapshot half = run(place, options, nullptr, 0, 2);
      expect_equal(
          run(place, options, &half, 2, 2), run(place, options, nullptr, 0, 4), name_of(place));
    }
  }
}

TEST(ShardedState, HalfPrecisionSavesMastersThatLoadIntoFullPrecision) {
  const Place two{2, 1, 3};
  const Snapshot saved = run(two, options_at(two, at::kBFloat16), nullptr, 0, 2);
  EXPECT_EQ(saved.tensors.at("model.embed.weight").scalar_type(), at::kFloat);
  expect_equal(run(two, options_at(two, at::kFloat), &saved, 0, 0), saved, "bf16 -> fp32");
}

TEST(ShardedState, SgdSavesItsMomentum) {
  const Place two{2, 1, 2};
  const Place four{4, 1, 3};
  const Snapshot saved = run(two, options_at(two, at::kFloat, "sgd"), nullptr, 0, 2);
  EXPECT_EQ(saved.tensors.count("momentum.layers.2.down"), 1);
  expect_equal(run(four, options_at(four, at::kFloat, "sgd"), &saved, 0, 0), saved, "2 -> 4");
}

}  // namespace
}  // namespace kamerton::optim
