// SPDX-License-Identifier: Apache-2.0
#include "task_table.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::cli {

TaskTable::TaskTable(std::filesystem::path file, std::vector<std::string> names)
    : file_(std::move(file)), names_(std::move(names)) {}

/// The file is a user's to edit: a table of numbers, a column a task, or an error that says so.
void TaskTable::require_form(const core::Json& json) const {
  const auto is_table = [&](const char* key) {
    const core::Json* rows = core::json_find(json, key);
    return rows != nullptr && rows->is_array() && rows->size() <= names_.size() + 1 &&
           std::all_of(rows->begin(), rows->end(), [&](const core::Json& row) {
             return row.is_array() && row.size() == names_.size() &&
                    std::all_of(row.begin(), row.end(), [](const core::Json& cell) {
                      return cell.is_number();
                    });
           });
  };
  const core::Json* names = core::json_find(json, "tasks");
  const bool other_tasks = names != nullptr && names->is_array() && *names != core::Json(names_);
  if (names == nullptr ||
      (!other_tasks && (!is_table("loss") || !is_table("token_accuracy") ||
                        json["loss"].size() != json["token_accuracy"].size()))) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "cli.tasks",
                       .what = file_.string() + " is damaged",
                       .allowed = "tables loss and token_accuracy with a column a task",
                       .hint = "remove it: --resume loads and measures each task again"});
  }
}

void TaskTable::read(const comm::Group& world) {
  std::string text;
  if (world.rank() == 0 && std::filesystem::exists(file_)) {
    text = storage::posix_filesystem().read_file(file_, 1 << 26);
  }
  text = world.broadcast(text, 0);
  if (text.empty()) {
    return;
  }
  const core::Json json = core::parse_json(text, file_.string());
  require_form(json);
  if (json["tasks"] != core::Json(names_)) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.tasks",
                       .what = "the run was begun with other tasks",
                       .got = core::Json(names_).dump(),
                       .allowed = json["tasks"].dump(),
                       .hint = "another run name (--set name=...)"});
  }
  rows_.clear();
  for (size_t row = 0; row < json["loss"].size(); ++row) {
    Row& cells = rows_.emplace_back();
    for (size_t task = 0; task < names_.size(); ++task) {
      cells.push_back(
          {json["loss"][row][task].get<double>(), json["token_accuracy"][row][task].get<double>()});
    }
  }
}

void TaskTable::add(Row row, const comm::Group& world) {
  rows_.push_back(std::move(row));
  if (world.rank() == 0) {
    storage::write_file_atomic(storage::posix_filesystem(), file_, to_json().dump(2) + "\n");
  }
}

template <class Gain>
double TaskTable::backward(const Gain& gain) const {
  if (finished() < 2) {
    return 0;
  }
  double sum = 0;
  for (size_t task = 0; task + 1 < finished(); ++task) {
    sum += gain(rows_[task + 1][task], rows_.back()[task]);
  }
  return sum / static_cast<double>(finished() - 1);
}

double TaskTable::backward_loss() const {
  return backward([](const Cell& learnt, const Cell& now) { return learnt.loss - now.loss; });
}

double TaskTable::backward_accuracy() const {
  return backward(
      [](const Cell& learnt, const Cell& now) { return now.accuracy - learnt.accuracy; });
}

std::string TaskTable::text() const {
  std::string text = fmt::format("{:<20}", "loss after");
  for (const std::string& name : names_) {
    text += fmt::format("{:>14}", name);
  }
  for (size_t row = 0; row < rows_.size(); ++row) {
    text += fmt::format("\n{:<20}", row == 0 ? "the start" : names_[row - 1]);
    for (const Cell& cell : rows_[row]) {
      text += fmt::format("{:>14.4f}", cell.loss);
    }
  }
  return text + fmt::format(
                    "\nbackward transfer {:+.4f} in loss (positive: gained), {:+.4f} in "
                    "token accuracy",
                    backward_loss(),
                    backward_accuracy());
}

core::Json TaskTable::to_json() const {
  core::Json losses = core::Json::array();
  core::Json accuracies = core::Json::array();
  for (const Row& row : rows_) {
    core::Json loss = core::Json::array();
    core::Json accuracy = core::Json::array();
    for (const Cell& cell : row) {
      loss.push_back(cell.loss);
      accuracy.push_back(cell.accuracy);
    }
    losses.push_back(loss);
    accuracies.push_back(accuracy);
  }
  return {
      {"tasks", names_},
      {"loss", losses},
      {"token_accuracy", accuracies},
      {"backward_transfer", {{"loss", backward_loss()}, {"token_accuracy", backward_accuracy()}}}};
}

}  // namespace kamerton::cli
