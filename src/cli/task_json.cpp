// SPDX-License-Identifier: Apache-2.0
#include "task_json.h"

#include <nlohmann/json.hpp>

namespace kamerton::cli {

using core::Json;
using federation::Task;

Json task_to_json(const Task& task, const std::vector<std::string>& asked) {
  Json models = Json::array();
  for (const federation::ModelFile& model : task.models) {
    models.push_back({{"round", model.round},
                      {"elements", model.elements},
                      {"digest", model.digest},
                      {"shares", model.shares}});
  }
  return {{"kind", static_cast<int>(task.kind)},
          {"round", task.round},
          {"measure", task.measure},
          {"asked", asked},
          {"models", std::move(models)},
          {"text", task.text}};
}

Task task_from_json(const Json& json) {
  Task task{.kind = static_cast<Task::Kind>(json["kind"].get<int>()),
            .round = json["round"].get<int64_t>(),
            .measure = json["measure"].get<bool>(),
            .models = {},
            .text = json["text"].get<std::string>()};
  for (const Json& model : json["models"]) {
    task.models.push_back({model["round"].get<int64_t>(),
                           model["elements"].get<int64_t>(),
                           model["digest"].get<std::string>(),
                           model["shares"].get<std::vector<double>>()});
  }
  return task;
}

}  // namespace kamerton::cli
