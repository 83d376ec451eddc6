// SPDX-License-Identifier: Apache-2.0
// A part of the base itself: parameters by name, the last layers, or the biases (BitFit, arXiv
// 2106.10199). Saved whole under their own names, peft_type PARTIAL (which PEFT does not have).
#include "../method.h"
#include "../patterns.h"

namespace kamerton::tuning {
namespace {

size_t train_matching(Builder& builder, const std::string& expression) {
  const std::regex pattern = compile(expression);
  size_t matches = 0;
  for (const tensor::ParameterPtr& parameter : builder.decoder().parameters()) {
    if (std::regex_match(parameter->name, pattern)) {
      builder.train(parameter, "base_model.model." + parameter->name);
      ++matches;
    }
  }
  return matches;
}

/// Units are "embed", the layers, and perhaps "head": the last layer's holds the final norm.
void train_last_layers(Builder& builder, int64_t count) {
  const int64_t layers = builder.decoder().config().layers;
  if (count > layers) {
    builder.refuse(
        "the model has fewer layers", std::to_string(count), "at most " + std::to_string(layers));
  }
  const std::vector<tensor::ParamUnit> units = builder.decoder().units();
  for (int64_t i = layers - count; i < layers; ++i) {
    for (const tensor::ParameterPtr& parameter : units[static_cast<size_t>(i) + 1].parameters) {
      builder.train(parameter, "base_model.model." + parameter->name);
    }
  }
}

void attach_partial(Builder& builder) {
  const core::Json& train = builder.spec().settings->at("train");
  for (const core::Json& expression : train) {
    if (train_matching(builder, expression.get<std::string>()) == 0) {
      builder.refuse("the expression matches no parameter",
                     expression.dump(),
                     "a regular expression for whole names such as model\\.layers\\.[0-5]\\..*");
    }
  }
  train_last_layers(builder, builder.count("last_layers"));
  if (train.empty() && builder.count("last_layers") == 0) {
    builder.refuse("nothing is named", "train: [], last_layers: 0", "tuning.train or last_layers");
  }
}

void attach_biases(Builder& builder) {
  const std::string expression = ".*\\.bias";
  if (train_matching(builder, expression) == 0) {
    builder.refuse("this model has no biases",
                   builder.decoder().config().architecture,
                   "another method, such as ln_tuning or ia3");
  }
  builder.settle("train", core::Json::array({expression}));
}

std::vector<Setting> part_settings() {
  return {{"train", core::Json::array(), "expressions for whole names of parameters"},
          {"last_layers", 0, "train the last so many layers"}};
}

}  // namespace

std::vector<Method> partial_methods() {
  return {{.name = "partial",
           .peft_type = "PARTIAL",
           .text = "parameters of the base by name, or its last layers",
           .settings = part_settings(),
           .targets = {},
           .attach = attach_partial},
          {.name = "bitfit",
           .peft_type = "PARTIAL",
           .text = "the biases of the base (arXiv 2106.10199)",
           .settings = part_settings(),
           .targets = {},
           .attach = attach_biases,
           .wrote = [](const core::Json&) { return false; }}};
}

}  // namespace kamerton::tuning
