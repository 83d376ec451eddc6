// SPDX-License-Identifier: Apache-2.0
// What each task of a sequence knows after each task: tasks.json.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"
#include "kamerton/core/json.h"

namespace kamerton::cli {

/// Row t holds every task's held-out loss and token accuracy after t tasks; row 0 before the first.
class TaskTable {
 public:
  TaskTable(std::filesystem::path file, std::vector<std::string> names);

  struct Cell {
    double loss = 0;
    double accuracy = 0;
  };
  using Row = std::vector<Cell>;

  /// Reads what an interrupted run has written. Collective.
  void read(const comm::Group& world);
  /// Adds a row; rank 0 writes the file.
  void add(Row row, const comm::Group& world);

  /// Tasks that are finished: rows but the first one.
  size_t finished() const { return rows_.empty() ? 0 : rows_.size() - 1; }
  bool started() const { return !rows_.empty(); }

  /// Backward transfer (arXiv 1706.08840): the mean over the finished tasks but the last of what
  /// they have gained since they were learnt. Losses: positive when they fell.
  double backward_loss() const;
  double backward_accuracy() const;
  /// The matrix of losses and the backward transfer, as lines.
  std::string text() const;
  core::Json to_json() const;

 private:
  void require_form(const core::Json& json) const;
  template <class Gain>
  double backward(const Gain& gain) const;

  std::filesystem::path file_;
  std::vector<std::string> names_;
  std::vector<Row> rows_;
};

}  // namespace kamerton::cli
