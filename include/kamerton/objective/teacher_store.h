// SPDX-License-Identifier: Apache-2.0
// A teacher's likeliest tokens for every target of a data set, computed ahead.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/comm/group.h"
#include "kamerton/data/dataset.h"
#include "kamerton/objective/objective.h"

namespace kamerton::objective {

/// What stored numbers were made from and with.
struct TeacherKey {
  std::string data_digest;
  std::string model_digest;
  int64_t top_k = 0;
  double temperature = 1;
  std::string dtype;

  /// Canonical JSON.
  std::string text() const;
};

/// On disk a folder `teacher-<digest of the key>` of HDF5 parts, made and resumed as those of
/// ReferenceStore; rows are read when they are asked for. Not thread-safe.
class TeacherStore {
 public:
  /// The store when it is whole; nullopt when parts are missing or damaged. ErrorKind::Data when
  /// the folder belongs to another key.
  static std::optional<TeacherStore> open(const std::filesystem::path& root,
                                          const TeacherKey& key,
                                          int64_t examples);
  /// Makes what is missing, then opens. Collective.
  static TeacherStore make(const std::filesystem::path& root,
                           const TeacherKey& key,
                           const data::Dataset& set,
                           model::Decoder& teacher,
                           int64_t rows,
                           const comm::Group& world);

  /// The rows of an example's targets: int64 [M, K] tokens, fp32 [M, K] log-probabilities.
  struct Rows {
    at::Tensor ids_MK;
    at::Tensor log_p_MK;
  };
  Rows rows(int64_t example) const;

  TeacherStore(TeacherStore&&) noexcept;
  TeacherStore& operator=(TeacherStore&&) noexcept;
  ~TeacherStore();

 private:
  struct Files;
  explicit TeacherStore(std::unique_ptr<Files> files);
  std::unique_ptr<Files> files_;
};

struct StoredTeachers {
  std::optional<TeacherStore> train;
  std::optional<TeacherStore> held_out;

  const TeacherStore* of(const Phase& phase) const {
    const std::optional<TeacherStore>& store = phase.held_out ? held_out : train;
    return store.has_value() ? &*store : nullptr;
  }
};

}  // namespace kamerton::objective
