// SPDX-License-Identifier: Apache-2.0
#include "kamerton/telemetry/throughput.h"

#include <algorithm>

namespace kamerton::telemetry {

Throughput::Throughput(const core::Clock& clock, size_t window)
    : clock_(clock), window_(std::max<size_t>(window, 1)), last_s_(clock.now_s()) {}

void Throughput::add(int64_t tokens) {
  const double now_s = clock_.now_s();
  steps_.push_back({tokens, now_s - last_s_});
  last_s_ = now_s;
  if (steps_.size() > window_) {
    steps_.pop_front();
  }
}

void Throughput::skip_pause() {
  last_s_ = clock_.now_s();
}

double Throughput::tokens_per_s() const {
  int64_t tokens = 0;
  double seconds = 0;
  for (const Step& step : steps_) {
    tokens += step.tokens;
    seconds += step.seconds;
  }
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0.0;
}

double Throughput::last_step_s() const {
  return steps_.empty() ? 0.0 : steps_.back().seconds;
}

namespace {

double flops_per_token(const ModelFlops& model, double attention_factor) {
  const auto multiplied = static_cast<double>(model.parameters - model.embedding_parameters);
  const double attention = static_cast<double>(model.layers) *
                           static_cast<double>(model.attention_width) *
                           static_cast<double>(model.sequence_length);
  return 6.0 * multiplied + attention_factor * attention;
}

}  // namespace

double flops_per_token_full(const ModelFlops& model) {
  return flops_per_token(model, 12.0);
}

double flops_per_token_causal(const ModelFlops& model) {
  return flops_per_token(model, 6.0);
}

std::optional<double> mfu(double flops_per_token, double tokens_per_s, double peak_flops_per_s) {
  if (!(peak_flops_per_s > 0)) {
    return std::nullopt;
  }
  return flops_per_token * tokens_per_s / peak_flops_per_s;
}

}  // namespace kamerton::telemetry
