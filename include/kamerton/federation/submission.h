// SPDX-License-Identifier: Apache-2.0
// What a site says about its work of a round: sums and counts, and the digest of its update.
#pragma once

#include <cstdint>
#include <string>

#include "kamerton/core/json.h"

namespace kamerton::federation {

struct Submission {
  std::string site;
  int64_t round = 0;
  std::string digest;     ///< of the encoded update's bytes; "" when only evaluated
  int64_t bytes = 0;      ///< of it
  int64_t steps = 0;      ///< optimizer updates done
  int64_t targets = 0;    ///< tokens trained on
  int64_t examples = 0;   ///< examples trained on
  double train_loss = 0;  ///< mean over the steps
  double eval_nll = 0;    ///< summed over eval_targets, of the received model
  int64_t eval_targets = 0;
  int64_t eval_correct = 0;
  double epsilon = 0;  ///< what the site has spent of its records' privacy, this round included

  core::Json to_json() const;
  /// ErrorKind::Data: fields missing, negative, not finite or beyond 2^53.
  static Submission from_json(const core::Json& json, const std::string& origin);
};

}  // namespace kamerton::federation
