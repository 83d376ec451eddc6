// SPDX-License-Identifier: Apache-2.0
// What a mixture-of-experts decoder has beside a dense one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kamerton::model {

struct ExpertsConfig {
  int64_t count = 0;                  ///< experts of a sparse layer; 0: all layers are dense
  int64_t choices = 2;                ///< experts a token
  int64_t intermediate_size = 0;      ///< of one expert
  bool normalised = true;             ///< the chosen weights of a token sum to 1
  std::vector<bool> sparse = {};      ///< of each layer: experts instead of one feed-forward part
  double aux_coefficient = 0.001;     ///< router_aux_loss_coef
  bool output_router_logits = false;  ///< config.json asks for the load-balancing loss
  // Names within a layer; experts are "<experts>.<number>.<gate>".
  std::string router = "mlp.gate";
  std::string experts = "mlp.experts";
  std::string gate = "gate_proj", up = "up_proj", down = "down_proj";

  bool in_layer(int64_t layer) const {
    return count > 0 && static_cast<size_t>(layer) < sparse.size() &&
           sparse[static_cast<size_t>(layer)];
  }
};

}  // namespace kamerton::model
