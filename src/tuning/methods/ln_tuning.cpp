// SPDX-License-Identifier: Apache-2.0
// LN tuning (arXiv 2312.11420): the norms' own weights are trained, nothing else.
#include <algorithm>

#include "../method.h"
#include "../patterns.h"

namespace kamerton::tuning {
namespace {

void attach_ln_tuning(Builder& builder) {
  std::vector<std::string> all = builder.decoder().norms();
  std::vector<std::string> names;
  for (const std::string& norm : all) {
    names.push_back(norm.substr(norm.rfind('.') + 1));
  }
  builder.choose_targets(names);
  builder.targeted(all);  // says what a target that names nothing might mean
  for (const std::string& target : builder.spec().targets) {
    if (std::none_of(all.begin(), all.end(), [&](const std::string& norm) {
          return any_names(std::vector<std::string>(1, target), norm);
        })) {
      builder.refuse("the target is no norm", target, all.front() + " and others");
    }
  }
  for (const std::string& norm : all) {
    if (!names_module(builder.spec(), norm) || !in_chosen_layer(builder.spec(), norm)) {
      continue;
    }
    for (const char* end : {".weight", ".bias"}) {
      if (const auto parameter = builder.decoder().find_parameter(norm + end)) {
        builder.train(parameter, "base_model.model." + norm + ".ln_tuning_layers" + end);
      }
    }
  }
}

}  // namespace

Method ln_tuning_method() {
  return {.name = "ln_tuning",
          .peft_type = "LN_TUNING",
          .text = "the weights of the norms (arXiv 2312.11420)",
          .settings = {},
          .targets = {},
          .attach = attach_ln_tuning};
}

}  // namespace kamerton::tuning
