// SPDX-License-Identifier: Apache-2.0
// A base model with several named adapters, one a request: --mix NAME=DIR.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/tuning/adapter_mix.h"

#include "command.h"

namespace kamerton::cli {

class MixedModel {
 public:
  /// Of `model_dir` and all --mix of the arguments, whole. ErrorKind::Config for --mix without a
  /// name, or a name twice; errors of adapters as they are opened.
  MixedModel(const po::variables_map& arguments, const std::string& model_dir);

  model::Decoder& decoder() { return *decoder_; }
  /// The number of the adapter that a record's "adapter" names; AdapterMix::kBase when it has none.
  /// ErrorKind::Data, with the nearest name, when --mix does not give it.
  int64_t number_of(const core::Json& record, const std::string& origin) const;
  /// Which adapter each document of the next forward goes through.
  void choose(const std::vector<int64_t>& adapters, const std::vector<int64_t>& offsets) {
    mix_->choose(adapters, offsets);
  }

 private:
  std::vector<std::string> names_;
  std::unique_ptr<model::Decoder> decoder_;
  std::unique_ptr<tuning::AdapterMix> mix_;
};

}  // namespace kamerton::cli
