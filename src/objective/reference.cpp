// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/reference.h"

#include <ATen/ATen.h>

namespace kamerton::objective {

at::Tensor AdapterOff::log_probs(const Tokens& tokens, double temperature) {
  const at::NoGradGuard no_grad;
  const tuning::AdapterSwitch off(adapter_);
  return model_.log_probs(model_.forward(tokens.rows), tokens.targets_N, temperature);
}

at::Tensor OtherModel::log_probs(const Tokens& tokens, double temperature) {
  const at::NoGradGuard no_grad;
  return model_.log_probs(model_.forward(tokens.rows), tokens.targets_N, temperature);
}

}  // namespace kamerton::objective
