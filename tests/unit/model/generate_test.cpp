// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/generate.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "sampler.h"
#include "small_model.h"
#include "support/expect_error.h"

namespace kamerton::model {
namespace {

using test::documents_of;
using test::small_model;

/// Greedy continuation by whole forwards, without a cache.
std::vector<int64_t> naive_greedy(Decoder& decoder, std::vector<int64_t> tokens, int64_t count) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> answer;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor hidden = decoder.forward(Rows::from_documents({tokens}));
    const int64_t next =
        decoder.logits(hidden.narrow(0, hidden.size(0) - 1, 1)).argmax().item<int64_t>();
    tokens.push_back(next);
    answer.push_back(next);
  }
  return answer;
}

SampleOptions unstopped(int64_t count) {
  SampleOptions options;
  options.max_new_tokens = count;
  options.ignore_stop = true;
  return options;
}

TEST(Generate, CachedBatchesEqualWholeForwards) {
  const auto decoder = small_model();
  const auto prompts = documents_of({3, 17, 1, 17, 9});
  SampleOptions options = unstopped(20);
  options.max_sequences = 2;  // the others wait for a place

  const std::vector<Generated> results = generate(*decoder, prompts, options);

  for (size_t p = 0; p < prompts.size(); ++p) {
    EXPECT_EQ(results[p].tokens, naive_greedy(*decoder, prompts[p], 20)) << p;
  }
}

TEST(Generate, PagesOfTheCacheJoinSeamlessly) {
  std::string config = test::kSmallConfig;
  config.replace(config.find("64"), 2, "400");
  const auto decoder = small_model({}, config);
  const auto prompts = documents_of({250});

  const std::vector<Generated> results = generate(*decoder, prompts, unstopped(12));

  EXPECT_EQ(results[0].tokens, naive_greedy(*decoder, prompts[0], 12));
}

TEST(Generate, StopsAtAnyStopIdAndAtTheContextsEnd) {
  const auto decoder = small_model();
  const std::vector<int64_t> prompt = documents_of({10})[0];
  const std::vector<int64_t> free_run = naive_greedy(*decoder, prompt, 8);
  SampleOptions options;
  options.max_new_tokens = 8;
  options.stop_ids = {96, free_run[3]};
  const auto first = std::find(free_run.begin(), free_run.end(), free_run[3]);

  const Generated stopped = generate(*decoder, {prompt}, options)[0];
  const Generated full = generate(*decoder, {prompt}, unstopped(1000))[0];

  EXPECT_TRUE(stopped.stopped);
  EXPECT_EQ(stopped.tokens, std::vector<int64_t>(free_run.begin(), first));
  EXPECT_FALSE(full.stopped);
  EXPECT_EQ(full.tokens.size(), 54u);  // 64 positions
}

TEST(Generate, SampledTokensDependOnTheSeedNotOnTheBatch) {
  const auto decoder = small_model();
  const auto prompts = documents_of({6, 6, 30});
  SampleOptions options = unstopped(15);
  options.temperature = 1.2;
  options.top_k = 40;
  options.top_p = 0.95;
  options.repetition_penalty = 1.1;
  options.seed = 3;
  SampleOptions one_by_one = options;
  one_by_one.max_sequences = 1;
  SampleOptions reseeded = options;
  reseeded.seed = 4;

  const auto together = generate(*decoder, prompts, options);
  const auto apart = generate(*decoder, prompts, one_by_one);
  const auto other = generate(*decoder, prompts, reseeded);

  for (size_t p = 0; p < prompts.size(); ++p) {
    EXPECT_EQ(together[p].tokens, apart[p].tokens);
    EXPECT_NE(together[p].tokens, other[p].tokens);
  }
}

TEST(Generate, TheCallbackSeesTokensAndMayEndASequence) {
  const auto decoder = small_model();
  const auto prompts = documents_of({4, 5});
  std::vector<std::vector<int64_t>> seen(2);

  const auto results = generate(*decoder, prompts, unstopped(10), [&](size_t p, int64_t token) {
    seen[p].push_back(token);
    return p == 1 || seen[p].size() < 3;
  });

  EXPECT_EQ(results[0].tokens.size(), 3u);
  EXPECT_EQ(results[1].tokens.size(), 10u);
  EXPECT_EQ(seen[0], results[0].tokens);
  EXPECT_EQ(seen[1], results[1].tokens);
}

TEST(Generate, RefusesPromptsThatTheModelCannotTake) {
  const auto decoder = small_model();
  using core::ErrorKind;
  test::expect_error(ErrorKind::Data, {"prompt 1", "nothing to continue"}, [&] {
    generate(*decoder, {{1}, {}}, {});
  });
  test::expect_error(ErrorKind::Data, {"id 97", "0 to 96"}, [&] {
    generate(*decoder, {{1, 97}}, {});
  });
  test::expect_error(ErrorKind::Data, {"65 tokens", "at most 64"}, [&] {
    generate(*decoder, documents_of({65}), {});
  });
}

TEST(Sampler, DrawsWithTheProbabilitiesOfTheLogits) {
  SampleOptions options;
  options.temperature = 0.5;
  std::vector<int64_t> counts(4);
  const int64_t draws = 20000;
  for (int64_t i = 0; i < draws; ++i) {
    std::vector<float> logits = {0.0f, 0.5f, -0.5f, 0.25f};
    ++counts[static_cast<size_t>(
        sample(logits.data(), 4, {}, options, 0, static_cast<uint64_t>(i)))];
  }
  const double z = std::exp(0) + std::exp(1) + std::exp(-1) + std::exp(0.5);
  EXPECT_NEAR(counts[0] / double(draws), 1 / z, 0.012);
  EXPECT_NEAR(counts[1] / double(draws), std::exp(1) / z, 0.012);
  EXPECT_NEAR(counts[2] / double(draws), std::exp(-1) / z, 0.012);
}

TEST(Sampler, TopKTopPAndTheVocabularysLimitExcludeTokens) {
  for (uint64_t draw = 0; draw < 300; ++draw) {
    SampleOptions options;
    options.temperature = 5.0;
    options.top_k = 2;
    std::vector<float> logits = {1.0f, 3.0f, 2.0f, 2.9f};
    const int64_t by_k = sample(logits.data(), 4, {}, options, 0, draw);
    EXPECT_TRUE(by_k == 1 || by_k == 3);
    options.top_k = 0;
    options.vocab_limit = 2;
    EXPECT_LT(sample(logits.data(), 4, {}, options, 0, draw), 2);
    options.vocab_limit = 0;
    options.temperature = 1.0;
    options.top_p = 0.2;
    EXPECT_EQ(sample(logits.data(), 4, {}, options, 0, draw), 1);
  }
}

TEST(Sampler, TheRepetitionPenaltyLowersBothSigns) {
  SampleOptions options;
  options.repetition_penalty = 2.0;
  std::vector<float> positive = {3.0f, 2.0f};
  std::vector<float> negative = {-1.0f, -1.5f};
  EXPECT_EQ(sample(positive.data(), 2, {0, 0}, options, 0, 0), 1);
  EXPECT_EQ(sample(negative.data(), 2, {0}, options, 0, 0), 1);
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  std::vector<float> logits = {std::numeric_limits<float>::quiet_NaN(), 1.0f};
  test::expect_error(
      core::ErrorKind::Numeric, {"not finite"}, [&] { sample(logits.data(), 2, {}, {}, 0, 0); });
}

}  // namespace
}  // namespace kamerton::model
