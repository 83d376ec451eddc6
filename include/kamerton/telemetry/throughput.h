// SPDX-License-Identifier: Apache-2.0
// Tokens per second over the last steps, and what share of the machine's arithmetic that is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "kamerton/core/clock.h"

namespace kamerton::telemetry {

/// Tokens per second over a window of steps: steady where the last step alone would jump.
class Throughput {
 public:
  /// `clock` must outlive it. The time starts now; `window` steps are averaged.
  explicit Throughput(const core::Clock& clock, size_t window = 20);
  /// A step has ended that took in `tokens` (over all ranks, say which when you print it).
  void add(int64_t tokens);
  /// Leaves out the time since the last add(): evaluation and saving are not training.
  void skip_pause();
  /// 0 before the first add().
  double tokens_per_s() const;
  /// Seconds of the latest step.
  double last_step_s() const;

 private:
  struct Step {
    int64_t tokens;
    double seconds;
  };
  const core::Clock& clock_;
  size_t window_;
  double last_s_;
  std::deque<Step> steps_;
};

/// What the formulas of arithmetic per token need.
struct ModelFlops {
  int64_t parameters = 0;  ///< all, a tied head counted once
  int64_t embedding_parameters =
      0;  ///< those only looked up; 0 when the head is tied to the embedding: it is multiplied then
  int64_t layers = 0;
  int64_t attention_width = 0;  ///< heads x head dimension
  int64_t sequence_length = 0;  ///< tokens
};

/// Forward and backward FLOP per token; recomputation is not counted. The two formulas in use
/// differ by 12 % and more: full   = 6 (parameters - embedding) + 12 layers width length       (no
/// discount for the causal mask; torchtitan) causal = 6 (parameters - embedding) +  6 layers width
/// length       (half of the attention; llm.c, Megatron)
double flops_per_token_full(const ModelFlops& model);
double flops_per_token_causal(const ModelFlops& model);

/// Model FLOP utilisation in [0, 1]; empty when the peak is unknown (<= 0). Name formula and peak
/// when printing it; leave it out for quantised weights, whose peak is another.
std::optional<double> mfu(double flops_per_token, double tokens_per_s, double peak_flops_per_s);

}  // namespace kamerton::telemetry
