// SPDX-License-Identifier: Apache-2.0
// Adapters on disk as Hugging Face PEFT writes and reads them: adapter_config.json +
// adapter_model.safetensors. Bottleneck adapters, which PEFT does not have, in the same shape;
// those of AdapterHub (adapter.safetensors) can be read.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "kamerton/storage/safetensors.h"
#include "kamerton/tuning/adapter.h"

namespace kamerton::tuning {

/// A PEFT folder opened for reading. Its tensors stay on disk until they are read.
class PeftAdapter {
 public:
  /// ErrorKind::Data for a missing or malformed file, a peft_type that is not known, or settings
  /// whose effect on the result is not known here: refused by name rather than ignored.
  static PeftAdapter open(const std::filesystem::path& folder);

  const AdapterSpec& spec() const { return spec_; }
  /// base_model_name_or_path, may be empty
  const std::string& base_model() const { return base_model_; }
  const storage::SafetensorsFile& file() const { return *file_; }

  /// Ties the file to an adapter that was attached for spec(): checks names and shapes (ErrorKind::
  /// Data naming the first tensor that one side lacks, or whose shape differs) and gives the
  /// adapter its constants.
  void bind(const Adapter& adapter);
  /// Whether the file holds this parameter of the bound adapter, its own or one of the base.
  bool holds(const tensor::Parameter& parameter) const;
  /// Elements [offset, offset + out.numel()) of a parameter in out's dtype. ErrorKind::Data when
  /// the file lacks it, its shape differs, or it holds a value that is not finite.
  void read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const;
  /// The whole tensor of this name, fp32.
  at::Tensor tensor(const std::string& key) const;

 private:
  const storage::TensorEntry& entry(const std::string& key) const;

  AdapterSpec spec_;
  std::string base_model_;
  std::shared_ptr<storage::SafetensorsFile> file_;
  std::map<std::string, std::string> stored_;         // name in PEFT's form -> in the file
  std::map<std::string, AdapterEntry> by_parameter_;  // of the bound adapter
};

/// Gives the whole tensor of a parameter to the writing rank (undefined elsewhere); collective
/// where parameters are sharded.
using Fetch = std::function<at::Tensor(const tensor::Parameter&)>;

/// How the parameters of a run started: an adapter that took its part out of the base (PiSSA,
/// OLoRA) is written as LoRA of twice the rank for the untouched base.
struct StartOfRun {
  uint64_t seed = 0;
  ReadBase base;
};

/// Writes a folder that PEFT's PeftModel.from_pretrained loads. Every rank calls it when `fetch` is
/// collective; only the rank with `writes` touches the disk. One tensor at a time is whole. Files
/// appear complete or not at all.
void write_peft(const std::filesystem::path& folder,
                const Adapter& adapter,
                const std::string& base_model,
                const Fetch& fetch,
                bool writes,
                const StartOfRun& start = {});

}  // namespace kamerton::tuning
