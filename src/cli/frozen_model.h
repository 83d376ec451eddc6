// SPDX-License-Identifier: Apache-2.0
// A model that is only read beside the trained one: a reference, a reward model, a teacher.
#pragma once

#include <memory>
#include <string>

#include "assemble.h"

namespace kamerton::cli {

class FrozenModel {
 public:
  /// The model of `path`, placed as the trained one is (at ZeRO stage 3 cut over the ranks); with
  /// the run's starting adapter where asked. Collective.
  FrozenModel(const RunConfig& config,
              const std::string& path,
              bool with_adapter,
              const optim::ShardGroups& groups);

  model::Decoder& decoder() { return *tuned_.decoder; }

 private:
  Tuned tuned_;
  std::unique_ptr<optim::ShardedParameters> placed_;
};

}  // namespace kamerton::cli
