// SPDX-License-Identifier: Apache-2.0
#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "kamerton/core/error.h"
#include "kamerton/core/random.h"

namespace kamerton::model {
namespace {

void penalise(float* logits, int64_t vocab, const std::vector<int64_t>& seen, double penalty) {
  const std::unordered_set<int64_t> tokens(seen.begin(), seen.end());
  for (const int64_t token : tokens) {
    if (token < vocab) {
      float& z = logits[token];
      z = static_cast<float>(z < 0 ? z * penalty : z / penalty);
    }
  }
}

int64_t most_likely(const float* logits, int64_t vocab) {
  return std::max_element(logits, logits + vocab) - logits;
}

struct Candidate {
  float logit;
  int64_t token;
};
bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

/// The k most likely, in order; all (unordered) when neither top-k nor top-p needs an order.
std::vector<Candidate> candidates(const float* logits,
                                  int64_t vocab,
                                  const SampleOptions& options) {
  std::vector<Candidate> all(static_cast<size_t>(vocab));
  for (int64_t i = 0; i < vocab; ++i) {
    all[static_cast<size_t>(i)] = {logits[i], i};
  }
  if (options.top_k > 0 && options.top_k < vocab) {
    std::nth_element(all.begin(), all.begin() + options.top_k, all.end(), before);
    // Ties with the last one stay, as transformers keeps every token that is not below it.
    all.resize(static_cast<size_t>(options.top_k));
  }
  if (options.top_p < 1.0) {
    std::sort(all.begin(), all.end(), before);
  }
  return all;
}

/// Keeps the shortest head of the sorted list whose probability reaches top_p; at least one.
void cut_nucleus(std::vector<double>& weights, double total, double top_p) {
  double mass = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    mass += weights[i];
    if (mass >= top_p * total) {
      weights.resize(i + 1);
      return;
    }
  }
}

}  // namespace

int64_t sample(float* logits,
               int64_t vocab,
               const std::vector<int64_t>& seen,
               const SampleOptions& options,
               uint64_t prompt,
               uint64_t step) {
  const int64_t usable = options.vocab_limit > 0 ? std::min(options.vocab_limit, vocab) : vocab;
  if (options.repetition_penalty != 1.0) {
    penalise(logits, usable, seen, options.repetition_penalty);
  }
  const int64_t top = most_likely(logits, usable);
  if (!std::isfinite(logits[top])) {
    throw core::Error(core::ErrorKind::Numeric,
                      {.where = "model.generate",
                       .what = "the model's output is not finite",
                       .got = std::to_string(logits[top])});
  }
  if (options.temperature <= 0) {
    return top;
  }
  const std::vector<Candidate> list = candidates(logits, usable, options);
  std::vector<double> weights(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    weights[i] = std::exp((static_cast<double>(list[i].logit) - logits[top]) / options.temperature);
  }
  if (options.top_p < 1.0) {
    cut_nucleus(weights, std::accumulate(weights.begin(), weights.end(), 0.0), options.top_p);
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double left = core::RandomStream(options.seed, "sample", prompt, step).uniform(0) * total;
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) {
      return list[i].token;
    }
  }
  return list[weights.size() - 1].token;
}

}  // namespace kamerton::model
