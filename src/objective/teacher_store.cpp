// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/teacher_store.h"

#include <map>
#include <utility>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/objective/rollout.h"
#include "kamerton/storage/hdf5_file.h"

#include "documents.h"
#include "part_folder.h"

namespace kamerton::objective {
namespace {

using storage::DType;

PartFolder folder_of(const std::filesystem::path& root, const TeacherKey& key, int64_t examples) {
  return {root, "teacher", key.text(), examples};
}

/// The numbers of one part, as they are stored: offsets in rows, one more than examples.
struct Numbers {
  std::vector<int64_t> offsets = {0};
  std::vector<int32_t> ids;
  std::vector<float> log_p;

  void add(const at::Tensor& ids_MK, const at::Tensor& log_p_MK) {
    const at::Tensor tokens = ids_MK.to(at::kCPU, at::kInt).contiguous();
    const at::Tensor values = log_p_MK.to(at::kCPU, at::kFloat).contiguous();
    const auto* token = tokens.const_data_ptr<int32_t>();
    const auto* value = values.const_data_ptr<float>();
    ids.insert(ids.end(), token, token + tokens.numel());
    log_p.insert(log_p.end(), value, value + values.numel());
  }
};

/// Forward passes of a part, as many on every rank.
class NumbersMaker {
 public:
  NumbersMaker(const data::Dataset& set,
               model::Decoder& teacher,
               const TeacherKey& key,
               int64_t rows)
      : set_(set), teacher_(teacher), key_(key), rows_(rows) {}

  Numbers make(const std::optional<Part>& part, int64_t part_size) {
    const at::NoGradGuard no_grad;
    Numbers numbers;
    for (int64_t begin = 0; begin < part_size; begin += rows_) {
      const int64_t left = part ? std::max<int64_t>(0, part->count - begin) : 0;
      group(part ? part->first + begin : 0, std::min(rows_, left), numbers);
    }
    return numbers;
  }

 private:
  void group(int64_t first, int64_t count, Numbers& numbers) {
    data::Batch batch;
    for (int64_t i = first; i < first + count; ++i) {
      const data::Example example = set_.get(i);
      if (!example.tokens.empty()) {
        batch.append(example, i);
      }
      numbers.offsets.push_back(numbers.offsets.back() + example.target_count());
    }
    const bool nothing = batch.tokens.empty();
    if (nothing) {
      data::Example filler;
      filler.tokens = {0, 0};
      filler.targets = {data::kNoTarget, data::kNoTarget};
      batch.append(filler, data::kFiller);
    }
    const at::Tensor hidden_ND = teacher_.forward(to_tokens(batch, teacher_.device()).rows);
    const at::Tensor rows_M = target_rows(batch).to(hidden_ND.device());
    teacher_.with_logits([&](const tensor::LogitsOf& logits_of) {
      constexpr int64_t kRows = 64;
      for (int64_t at = 0; at < rows_M.size(0); at += kRows) {
        const at::Tensor some = rows_M.narrow(0, at, std::min(kRows, rows_M.size(0) - at));
        const at::Tensor log_p =
            at::log_softmax(logits_of(hidden_ND.index_select(0, some)) / key_.temperature, 1);
        const auto [values, ids] = at::topk(log_p, std::min(key_.top_k, log_p.size(1)), 1);
        numbers.add(ids, values);
      }
    });
  }

  const data::Dataset& set_;
  model::Decoder& teacher_;
  const TeacherKey& key_;
  int64_t rows_;
};

template <class T>
void write(storage::Hdf5File& file, const char* name, DType dtype, const std::vector<T>& values) {
  const auto length = static_cast<int64_t>(values.size());
  file.create_dataset(name, dtype, length);
  if (length > 0) {
    file.write(name, dtype, 0, length, values.data());
  }
}

}  // namespace

std::string TeacherKey::text() const {
  return core::Json{{"format", "kamerton teacher numbers 1"},
                    {"data", data_digest},
                    {"model", model_digest},
                    {"top_k", top_k},
                    {"temperature", temperature},
                    {"dtype", dtype}}
             .dump(2) +
         "\n";
}

struct TeacherStore::Files {
  PartFolder folder;
  /// Of the parts that were asked for: offsets, and the open file.
  struct Open {
    storage::Hdf5File file;
    std::vector<int64_t> offsets;
    int64_t width = 0;
  };
  mutable std::map<size_t, Open> open = {};

  Open& part(size_t number) const {
    auto found = open.find(number);
    if (found == open.end()) {
      const Part& part = folder.parts()[number];
      Open one{storage::Hdf5File::open(folder.file(part)), {}, 0};
      one.offsets.resize(static_cast<size_t>(part.count + 1));
      one.file.read("offsets", DType::I64, 0, part.count + 1, one.offsets.data());
      const int64_t rows = one.offsets.back();
      one.width = rows > 0 ? one.file.length("ids") / rows : 0;
      found = open.emplace(number, std::move(one)).first;
    }
    return found->second;
  }
};

TeacherStore::TeacherStore(std::unique_ptr<Files> files) : files_(std::move(files)) {}
TeacherStore::TeacherStore(TeacherStore&&) noexcept = default;
TeacherStore& TeacherStore::operator=(TeacherStore&&) noexcept = default;
TeacherStore::~TeacherStore() = default;

std::optional<TeacherStore> TeacherStore::open(const std::filesystem::path& root,
                                               const TeacherKey& key,
                                               int64_t examples) {
  PartFolder folder = folder_of(root, key, examples);
  folder.check_key();
  if (!folder.whole()) {
    return std::nullopt;
  }
  return TeacherStore(std::make_unique<Files>(Files{std::move(folder)}));
}

TeacherStore TeacherStore::make(const std::filesystem::path& root,
                                const TeacherKey& key,
                                const data::Dataset& set,
                                model::Decoder& teacher,
                                int64_t rows,
                                const comm::Group& world) {
  const PartFolder folder = folder_of(root, key, set.size());
  NumbersMaker maker(set, teacher, key, rows);
  Numbers numbers;
  folder.fill(
      world,
      [&](const std::optional<Part>& part) { numbers = maker.make(part, folder.part_size()); },
      [&](storage::Hdf5File& file) {
        write(file, "offsets", DType::I64, numbers.offsets);
        write(file, "ids", DType::I32, numbers.ids);
        write(file, "log_probs", DType::F32, numbers.log_p);
      });
  auto store = open(root, key, set.size());
  if (!store) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = "objective.teacher",
                       .what = "the teacher's numbers were written, but do not read back whole",
                       .got = folder.path().string(),
                       .hint = "every rank must see the same folder (data.store_dir)"});
  }
  return std::move(*store);
}

TeacherStore::Rows TeacherStore::rows(int64_t example) const {
  const auto number = static_cast<size_t>(example / files_->folder.part_size());
  Files::Open& part = files_->part(number);
  const auto place = static_cast<size_t>(example - files_->folder.parts()[number].first);
  const int64_t first = part.offsets[place];
  const int64_t count = part.offsets[place + 1] - first;
  at::Tensor ids = at::empty({count, part.width}, at::kInt);
  at::Tensor log_p = at::empty({count, part.width}, at::kFloat);
  if (count > 0) {
    part.file.read(
        "ids", DType::I32, first * part.width, count * part.width, ids.mutable_data_ptr());
    part.file.read(
        "log_probs", DType::F32, first * part.width, count * part.width, log_p.mutable_data_ptr());
  }
  return {ids.to(at::kLong), log_p};
}

}  // namespace kamerton::objective
