// SPDX-License-Identifier: Apache-2.0
// Decoders with adapters: from a file, or as a run starts them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/model/weights.h"
#include "kamerton/tuning/peft_format.h"

#include "support/oracle.h"

namespace kamerton::tuning {

using test::oracle_path;

struct Adapted {
  std::unique_ptr<model::Decoder> decoder;
  std::optional<Adapter> adapter;
};

inline std::unique_ptr<model::Decoder> base_decoder(const std::string& name,
                                                    const AdapterSpec& spec = {}) {
  model::ModelOptions options;
  options.path = oracle_path("models/" + name).string();
  options.dtype = "fp32";
  return std::make_unique<model::Decoder>(prepare_config(model::read_config(options.path), spec),
                                          options);
}

inline Adapted load(const std::string& base, const std::filesystem::path& folder) {
  PeftAdapter file = PeftAdapter::open(folder);
  Adapted adapted{base_decoder(base, file.spec()), std::nullopt};
  adapted.adapter = Adapter::attach(*adapted.decoder, file.spec());
  file.bind(*adapted.adapter);
  adapted.decoder->load_whole();
  for (const AdapterEntry& entry : adapted.adapter->entries()) {
    file.read(*entry.parameter, 0, entry.parameter->value.detach().view({-1}));
  }
  return adapted;
}

inline std::filesystem::path scratch(const std::string& name) {
  return std::filesystem::temp_directory_path() /
         ("kamerton-" + name + "-" + std::to_string(getpid()));
}

inline at::Tensor value_of(const tensor::Parameter& parameter) {
  return parameter.value;
}

/// An adapter as a run would make it, without a file.
inline AdapterSpec fresh(const std::string& method,
                         std::vector<std::string> settings = {},
                         std::vector<std::string> targets = {}) {
  TuningConfig config;
  config.method = method;
  config.settings = std::move(settings);
  config.targets = std::move(targets);
  config.train = {".*\\.mlp\\..*"};
  return AdapterSpec::from(config);
}

/// Every method as it starts, on a decoder that has its weights.
inline Adapted start(const std::string& base, const AdapterSpec& spec, uint64_t seed = 7) {
  Adapted adapted{base_decoder(base, spec), std::nullopt};
  adapted.adapter = Adapter::attach(*adapted.decoder, spec);
  adapted.decoder->load_whole();
  const at::NoGradGuard no_grad;
  const ReadBase read = [](const tensor::Parameter& parameter) {
    return parameter.value.detach().clone();
  };
  for (const AdapterEntry& entry : adapted.adapter->entries()) {
    if (entry.parameter->adapter) {
      const at::Tensor flat = entry.parameter->value.detach().view({-1});
      adapted.adapter->initialise(*entry.parameter, seed, 0, flat, read);
    }
  }
  for (const tensor::ParameterPtr& parameter : adapted.decoder->parameters()) {
    if (adapted.adapter->changes_base(*parameter)) {
      parameter->value.detach().copy_(adapted.adapter->starting_base(*parameter, seed, read));
    }
  }
  return adapted;
}

inline std::string refusal(const std::function<void()>& work, core::ErrorKind kind) {
  try {
    work();
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace kamerton::tuning
