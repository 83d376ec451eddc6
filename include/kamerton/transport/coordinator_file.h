// SPDX-License-Identifier: Apache-2.0
// What kamerton-coordinator is told: one YAML file.
#pragma once

#include <cstdint>
#include <string>

#include "kamerton/federation/config.h"

namespace kamerton::transport {

struct CoordinatorFile {
  std::string run;
  std::string digest;
  int64_t seed = 42;
  bool lora = false;
  std::string folder;
  std::string listen = "0.0.0.0:7443";
  std::string identity;
  std::string authority;
  double linger_s = 30;
  int64_t max_threads = 64;
  federation::FederationConfig federation;
};

void describe(config::Fields& fields, CoordinatorFile& file);

}  // namespace kamerton::transport
