// SPDX-License-Identifier: Apache-2.0
// Several adapters on one base, one a document: rows of one batch go through different adapters.
#pragma once

#include <memory>
#include <vector>

#include "kamerton/tuning/adapter.h"

namespace kamerton::tuning {

/// Holds the adapters of a decoder for inference; the decoder must outlive it. Only methods of
/// linear modules can be mixed.
class AdapterMix {
 public:
  static constexpr int64_t kBase = -1;  ///< no adapter

  explicit AdapterMix(model::Decoder& decoder);
  ~AdapterMix();
  AdapterMix(const AdapterMix&) = delete;
  AdapterMix& operator=(const AdapterMix&) = delete;

  /// Attaches a further adapter, before the decoder's parameters are placed; returns it. Its number
  /// for choose() is size() - 1 then. ErrorKind::Config when it changes more than linear modules.
  const Adapter& add(const AdapterSpec& spec);
  int64_t size() const;
  const Adapter& operator[](int64_t number) const;
  /// Which adapter each document of the next forward goes through: numbers or kBase.
  void choose(const std::vector<int64_t>& adapters, const std::vector<int64_t>& offsets);

 private:
  struct Choice;
  class Module;
  model::Decoder& decoder_;
  std::shared_ptr<Choice> choice_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
};

}  // namespace kamerton::tuning
