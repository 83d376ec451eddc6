// SPDX-License-Identifier: Apache-2.0
// Adapters on disk as Hugging Face PEFT writes and reads them: adapter_config.json +
// adapter_model.safetensors.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "kamerton/storage/safetensors.h"
#include "kamerton/tuning/lora.h"

namespace kamerton::tuning {

/// A PEFT folder opened for reading. Its tensors stay on disk until they are read.
class PeftAdapter {
 public:
  /// ErrorKind::Data for a missing or malformed file, or a peft_type other than LORA, or settings
  /// whose effect on the result is not known here (DoRA, bias, modules_to_save ...): refused by
  /// name rather than ignored.
  static PeftAdapter open(const std::filesystem::path& folder);

  const LoraSpec& spec() const { return spec_; }
  const std::string& base_model() const {
    return base_model_;
  }  ///< base_model_name_or_path, may be empty
  const storage::SafetensorsFile& file() const { return *file_; }

  /// Elements [offset, offset + out.numel()) of an adapter parameter in out's dtype.
  /// ErrorKind::Data when the file lacks it, its shape differs, or it holds a value that is not
  /// finite.
  void read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const;

  /// ErrorKind::Data naming the first tensor of the file that `lora` has no place for, or the first
  /// that it lacks.
  void check_complete(const Lora& lora) const;

 private:
  LoraSpec spec_;
  std::string base_model_;
  std::shared_ptr<storage::SafetensorsFile> file_;
};

/// Gives the whole tensor of a parameter to the writing rank (undefined elsewhere); collective
/// where parameters are sharded.
using Fetch = std::function<at::Tensor(const tensor::Parameter&)>;

/// Writes a folder that PEFT's PeftModel.from_pretrained loads. Every rank calls it when `fetch` is
/// collective; only the rank with `writes` touches the disk. One tensor at a time is whole. Files
/// appear complete or not at all.
void write_peft(const std::filesystem::path& folder,
                const Lora& lora,
                const std::string& base_model,
                const Fetch& fetch,
                bool writes);

}  // namespace kamerton::tuning
