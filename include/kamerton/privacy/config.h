// SPDX-License-Identifier: Apache-2.0
// Privacy of single records while training.
#pragma once

#include <optional>
#include <string>

#include "kamerton/config/field.h"

namespace kamerton::privacy {

/// The `privacy` section of a run. Ranges and meanings are stated once, in describe().
struct RecordPrivacyConfig {
  std::string unit = "none";
  std::string sampling = "poisson";
  double clip = 1.0;
  std::optional<double> noise;
  std::optional<double> epsilon;
  double delta = 1e-5;
  std::string data_set;
  std::string site = "local";
  std::string folder = "privacy";

  bool enabled() const { return unit == "record"; }
};

void describe(config::Fields& fields, RecordPrivacyConfig& config);

/// What ranges cannot say. Pure. Throws ErrorKind::Config.
void validate(const RecordPrivacyConfig& config);

}  // namespace kamerton::privacy
