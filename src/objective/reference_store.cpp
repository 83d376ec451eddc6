// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/objective/reference.h"

#include "documents.h"
#include "pair_sums.h"
#include "part_folder.h"

namespace kamerton::objective {
namespace {

constexpr char kDataset[] = "log_probs";

/// Both sums of examples [first, first + rows) of a part. A rank without work, and an example that
/// is left out, compute a filler: with a sharded model all ranks go forward together.
class SumsMaker {
 public:
  SumsMaker(const data::Dataset& set, Reference& reference, double tail_weight, int64_t rows)
      : set_(set), reference_(reference), tail_weight_(tail_weight), rows_(rows) {}

  std::vector<float> make(const std::optional<Part>& part, int64_t part_size) {
    std::vector<float> sums;
    for (int64_t begin = 0; begin < part_size; begin += rows_) {
      const int64_t left = part ? std::max<int64_t>(0, part->count - begin) : 0;
      group(part ? part->first + begin : 0, std::min(rows_, left), sums);
    }
    return sums;
  }

 private:
  void group(int64_t first, int64_t count, std::vector<float>& sums) {
    data::Batch batch;
    std::vector<bool> there;
    for (int64_t i = first; i < first + count; ++i) {
      const data::Example example = set_.get(i);
      there.push_back(!example.tokens.empty());
      if (there.back()) {
        batch.append(example, i);
      }
    }
    if (batch.tokens.empty()) {
      batch.append(filler(), data::kFiller);
    }
    const at::Tensor sums_D = answer_sums(batch).to(at::kCPU).contiguous();
    const float* value = sums_D.const_data_ptr<float>();
    for (const bool real : there) {
      sums.push_back(real ? *value++ : 0.0f);
      sums.push_back(real ? *value++ : 0.0f);
    }
  }

  at::Tensor answer_sums(const data::Batch& batch) {
    const at::Tensor weights_N = answer_weights(batch, tail_weight_);
    const at::Tensor log_probs_N =
        reference_.log_probs(to_tokens(batch, reference_.device())).to(at::kCPU);
    return sum_documents(log_probs_N * weights_N, batch);
  }

  data::Example filler() const {
    data::Example one;
    one.tokens = {0, 0};
    one.targets = {data::kNoTarget, data::kNoTarget};
    data::Example both = one;
    both.rejected = std::make_shared<const data::Example>(one);
    return both;
  }

  const data::Dataset& set_;
  Reference& reference_;
  double tail_weight_;
  int64_t rows_;
};

PartFolder folder_of(const std::filesystem::path& root, const ReferenceKey& key, int64_t examples) {
  return {root, "reference", key.text(), examples};
}

}  // namespace

std::string ReferenceKey::text() const {
  return core::Json{{"format", "kamerton reference log-probabilities 1"},
                    {"data", data_digest},
                    {"model", model_digest},
                    {"answers", answers},
                    {"tail_weight", tail_weight},
                    {"dtype", dtype}}
             .dump(2) +
         "\n";
}

std::optional<ReferenceStore> ReferenceStore::open(const std::filesystem::path& root,
                                                   const ReferenceKey& key,
                                                   int64_t examples) {
  const PartFolder folder = folder_of(root, key, examples);
  folder.check_key();
  if (!folder.whole()) {
    return std::nullopt;
  }
  ReferenceStore store;
  store.sums_.resize(static_cast<size_t>(2 * examples));
  for (const Part& part : folder.parts()) {
    auto file = storage::Hdf5File::open(folder.file(part));
    float* begin = store.sums_.data() + 2 * part.first;
    file.read(kDataset, storage::DType::F32, 0, 2 * part.count, begin);
    file.close();
  }
  return store;
}

ReferenceStore ReferenceStore::make(const std::filesystem::path& root,
                                    const ReferenceKey& key,
                                    const data::Dataset& set,
                                    Reference& reference,
                                    int64_t rows,
                                    const comm::Group& world) {
  const PartFolder folder = folder_of(root, key, set.size());
  SumsMaker maker(set, reference, key.tail_weight, rows);
  std::vector<float> sums;
  folder.fill(
      world,
      [&](const std::optional<Part>& part) { sums = maker.make(part, folder.part_size()); },
      [&](storage::Hdf5File& file) {
        const auto length = static_cast<int64_t>(sums.size());
        file.create_dataset(kDataset, storage::DType::F32, length);
        file.write(kDataset, storage::DType::F32, 0, length, sums.data());
      });
  auto store = open(root, key, set.size());
  if (!store) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = "objective.reference",
                       .what = "the log-probabilities were written, but do not read back whole",
                       .got = folder.path().string(),
                       .hint = "every rank must see the same folder (data.store_dir)"});
  }
  return std::move(*store);
}

}  // namespace kamerton::objective
