// SPDX-License-Identifier: Apache-2.0
// The model that answers are compared with, and its numbers computed ahead.
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
#include "kamerton/tuning/adapter.h"

namespace kamerton::objective {

/// The model that answers are compared with. It is not trained.
class Reference {
 public:
  virtual ~Reference() = default;
  /// log p(target) a row, fp32 [N], 0 where there is none; without gradient. Collective when the
  /// model is sharded.
  /// `temperature` divides the logits.
  virtual at::Tensor log_probs(const Tokens& tokens, double temperature) = 0;
  at::Tensor log_probs(const Tokens& tokens) { return log_probs(tokens, 1.0); }
  virtual at::Device device() const = 0;
};

/// The trained model without its adapter: the base model.
class AdapterOff : public Reference {
 public:
  AdapterOff(model::Decoder& model, tuning::Adapter& adapter) : model_(model), adapter_(adapter) {}
  using Reference::log_probs;
  at::Tensor log_probs(const Tokens& tokens, double temperature) override;
  at::Device device() const override { return model_.device(); }

 private:
  model::Decoder& model_;
  tuning::Adapter& adapter_;
};

/// A model of its own, placed by the caller.
class OtherModel : public Reference {
 public:
  explicit OtherModel(model::Decoder& model) : model_(model) {}
  using Reference::log_probs;
  at::Tensor log_probs(const Tokens& tokens, double temperature) override;
  at::Device device() const override { return model_.device(); }

 private:
  model::Decoder& model_;
};

/// What the stored numbers were made from and with.
struct ReferenceKey {
  std::string data_digest;
  std::string model_digest;  ///< of every file that the reference model is read from
  std::string answers;       ///< "pair", "judged"
  double tail_weight = 1;    ///< LD-DPO's: sums depend on it
  std::string dtype;         ///< computed in

  /// Canonical JSON.
  std::string text() const;
};

/// Log-probabilities of a reference model for every example of a data set: two sums an example, of
/// the better and the worse answer, or of the judged and the mismatched one. On disk a folder
/// `reference-<digest of the key>` of HDF5 parts with a fixed number of examples each; each part is
/// followed by a note with its digest, and one without a note does not count. So a killed
/// computation goes on where it stopped, on any number of ranks.
class ReferenceStore {
 public:
  /// All ranks; nothing is communicated. The store when it is whole; nullopt when parts are missing
  /// or damaged (they are made again). ErrorKind::Data when the folder belongs to another key.
  static std::optional<ReferenceStore> open(const std::filesystem::path& root,
                                            const ReferenceKey& key,
                                            int64_t examples);
  /// Makes what is missing, parts shared out over the ranks, `rows` examples at a time, then opens.
  /// Collective.
  static ReferenceStore make(const std::filesystem::path& root,
                             const ReferenceKey& key,
                             const data::Dataset& set,
                             Reference& reference,
                             int64_t rows,
                             const comm::Group& world);

  /// The sum of answer 0 or 1 of an example.
  float log_prob(int64_t example, int answer) const {
    return sums_[static_cast<size_t>(2 * example + answer)];
  }
  int64_t size() const { return static_cast<int64_t>(sums_.size() / 2); }

 private:
  std::vector<float> sums_;
};

/// The stored numbers of a run's data, where they were asked for.
struct StoredReferences {
  std::optional<ReferenceStore> train;
  std::optional<ReferenceStore> held_out;

  /// nullptr: the reference model is asked.
  const ReferenceStore* of(const Phase& phase) const {
    const std::optional<ReferenceStore>& store = phase.held_out ? held_out : train;
    return store.has_value() ? &*store : nullptr;
  }
};

/// The name under which stored sums are attached to a batch's documents.
inline constexpr char kReferenceSums[] = "reference sums";

}  // namespace kamerton::objective
