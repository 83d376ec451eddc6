// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/neftune.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace kamerton::tuning {
namespace {

constexpr int64_t kWidth = 512;

at::Tensor noise_of(Neftune noise, const at::Tensor& keys, const std::vector<int64_t>& offsets) {
  noise.begin(keys, offsets);
  return noise.apply(keys, at::zeros({keys.size(0), kWidth}));
}

TEST(Neftune, FillsTheIntervalOfEachDocumentsOwnLength) {
  const at::Tensor noise = noise_of(Neftune(5.0, 1), at::arange(100, at::kLong), {0, 10, 100});
  for (const auto& [begin, end] :
       {std::pair<int64_t, int64_t>(0, 10), std::pair<int64_t, int64_t>(10, 100)}) {
    const double bound = 5.0 / std::sqrt(static_cast<double>((end - begin) * kWidth));
    const at::Tensor part = noise.slice(0, begin, end);
    EXPECT_LE(part.abs().max().item<double>(), bound);
    EXPECT_GT(part.abs().max().item<double>(), 0.99 * bound);
    EXPECT_NEAR(part.mean().item<double>(), 0.0, 0.03 * bound);
    EXPECT_NEAR(part.pow(2).mean().item<double>(), bound * bound / 3, 0.03 * bound * bound);
  }
}

TEST(Neftune, DoesNotDependOnWhatADocumentIsPackedWith) {
  const at::Tensor keys = at::arange(40, at::kLong) + 1000;
  const at::Tensor packed = noise_of(Neftune(5.0, 1), keys, {0, 15, 40});
  const at::Tensor alone = noise_of(Neftune(5.0, 1), keys.slice(0, 15), {0, 25});
  EXPECT_TRUE(at::equal(packed.slice(0, 15), alone));
}

TEST(Neftune, AnotherSeedOrTokenHasOtherNoise) {
  const at::Tensor keys = at::arange(8, at::kLong);
  const at::Tensor noise = noise_of(Neftune(5.0, 1), keys, {0, 8});
  EXPECT_FALSE(at::equal(noise, noise_of(Neftune(5.0, 2), keys, {0, 8})));
  EXPECT_FALSE(at::equal(noise[0], noise[1]));
}

TEST(Neftune, LetsGradientsPassAndIsSilentOutsideOfAMicroBatchOrWithoutThem) {
  Neftune noise(5.0, 1);
  const at::Tensor tokens = at::arange(4, at::kLong);
  const at::Tensor x = at::zeros({4, kWidth}).requires_grad_(true);
  EXPECT_TRUE(at::equal(noise.apply(tokens, x), x));
  noise.begin(tokens, {0, 4});
  noise.apply(tokens, x).sum().backward();
  EXPECT_TRUE(at::equal(x.grad(), at::ones({4, kWidth})));
  {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(at::equal(noise.apply(tokens, x), x));
  }
  noise.end();
  EXPECT_TRUE(at::equal(noise.apply(tokens, x), x));
}

TEST(Neftune, WrapsWhatAnAdapterMakesOfTheEmbedding) {
  struct Doubling final : model::EmbeddingExtension {
    at::Tensor apply(const at::Tensor&, const at::Tensor& rows_ND) override { return rows_ND * 2; }
  };
  Neftune noise(5.0, 1, std::make_shared<Doubling>());
  const at::Tensor keys = at::arange(3, at::kLong);
  noise.begin(keys, {0, 3});
  const at::Tensor changed = noise.apply(keys, at::ones({3, kWidth}));
  EXPECT_TRUE(at::allclose(changed - 2, noise_of(Neftune(5.0, 1), keys, {0, 3}), 0, 1e-6));
}

}  // namespace
}  // namespace kamerton::tuning
