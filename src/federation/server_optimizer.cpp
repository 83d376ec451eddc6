// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/server_optimizer.h"

#include <cmath>

namespace kamerton::federation {
namespace {

/// The second moment after an update d.
using SecondMoment = double (*)(double v, double d, double beta2);

SecondMoment second_moment_of(const std::string& method) {
  if (method == "fedadam") {
    return [](double v, double d, double beta2) { return beta2 * v + (1 - beta2) * d * d; };
  }
  if (method == "fedyogi") {
    return [](double v, double d, double beta2) {
      const double gap = v - d * d;
      const double sign = gap > 0 ? 1.0 : (gap < 0 ? -1.0 : 0.0);
      return v - (1 - beta2) * d * d * sign;
    };
  }
  if (method == "fedadagrad") {
    return [](double v, double d, double) { return v + d * d; };
  }
  return nullptr;
}

}  // namespace

ServerOptimizer::ServerOptimizer(const FederationConfig& config) : config_(config) {}

bool ServerOptimizer::has_second_moment() const {
  return second_moment_of(config_.method) != nullptr;
}

bool ServerOptimizer::has_momentum() const {
  return has_second_moment() || config_.method == "fedavgm" || config_.method == "diloco";
}

float ServerOptimizer::initial_second_moment() const {
  return config_.server.initial_v == "zero"
             ? 0.0F
             : static_cast<float>(config_.server.tau * config_.server.tau);
}

void ServerOptimizer::step(int64_t round,
                           std::span<const double> mean_update,
                           std::span<float> x,
                           std::span<float> m,
                           std::span<float> v) const {
  const ServerConfig& server = config_.server;
  double lr = server_lr(config_);
  const size_t n = mean_update.size();
  if (const SecondMoment second_moment = second_moment_of(config_.method)) {
    if (server.bias_correction) {
      const auto t = static_cast<double>(round + 1);
      lr *= std::sqrt(1 - std::pow(server.beta2, t)) / (1 - std::pow(server.beta1, t));
    }
    for (size_t i = 0; i < n; ++i) {
      const double d = mean_update[i];
      const double first = server.beta1 * m[i] + (1 - server.beta1) * d;
      const double second = second_moment(v[i], d, server.beta2);
      x[i] = static_cast<float>(x[i] + lr * first / (std::sqrt(second) + server.tau));
      m[i] = static_cast<float>(first);
      v[i] = static_cast<float>(second);
    }
    return;
  }
  const bool nesterov = config_.method == "diloco";
  for (size_t i = 0; i < n; ++i) {
    const double d = mean_update[i];
    if (!has_momentum()) {
      x[i] = static_cast<float>(x[i] + lr * d);
      continue;
    }
    const double first = server.momentum * m[i] + d;
    x[i] = static_cast<float>(x[i] + lr * (nesterov ? d + server.momentum * first : first));
    m[i] = static_cast<float>(first);
  }
}

}  // namespace kamerton::federation
