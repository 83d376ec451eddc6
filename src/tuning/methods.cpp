// SPDX-License-Identifier: Apache-2.0
// The table of methods.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

#include "method.h"

namespace kamerton::tuning {

const std::vector<Method>& methods() {
  static const std::vector<Method> table = [] {
    std::vector<Method> all = {lora_method(),
                               ia3_method(),
                               vera_method(),
                               adalora_method(),
                               loha_method(),
                               lokr_method(),
                               oft_method(),
                               boft_method(),
                               hra_method(),
                               miss_method(),
                               fourierft_method(),
                               randlora_method(),
                               shira_method(),
                               ln_tuning_method(),
                               trainable_tokens_method(),
                               prompt_tuning_method(),
                               p_tuning_method(),
                               prefix_tuning_method()};
    for (std::vector<Method> several : {bottleneck_methods(), partial_methods()}) {
      all.insert(all.end(), several.begin(), several.end());
    }
    return all;
  }();
  return table;
}

std::vector<std::string> method_names() {
  std::vector<std::string> names;
  for (const Method& method : methods()) {
    names.emplace_back(method.name);
  }
  return names;
}

const Method& find_method(const std::string& name) {
  for (const Method& method : methods()) {
    if (method.name == name) {
      return method;
    }
  }
  const std::vector<std::string> names = method_names();
  throw core::Error(core::ErrorKind::Config,
                    {.where = "tuning.methods",
                     .what = "no such method",
                     .got = "'" + name + "'",
                     .allowed = fmt::format("{}", fmt::join(names, ", ")),
                     .hint = config::nearest(name, names)});
}

const Method* find_peft_type(std::string_view peft_type, const core::Json& config) {
  for (const Method& method : methods()) {
    if (method.peft_type == peft_type && (method.wrote == nullptr || method.wrote(config))) {
      return &method;
    }
  }
  return nullptr;
}

}  // namespace kamerton::tuning
