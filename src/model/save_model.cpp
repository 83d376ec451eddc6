// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <optional>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/model/weights.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/safetensors.h"

namespace kamerton::model {
namespace {

/// What belongs to a model besides its weights and configuration.
constexpr const char* kCompanions[] = {"tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "chat_template.jinja",
                                       "vocab.json",
                                       "merges.txt",
                                       "tokenizer.model",
                                       "generation_config.json"};
constexpr uint64_t kCompanionBytes = uint64_t{1} << 30;

storage::DType file_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return storage::DType::F32;
    case at::kBFloat16:
      return storage::DType::BF16;
    case at::kHalf:
      return storage::DType::F16;
    default:
      throw core::Error(core::ErrorKind::Internal,
                        {.where = "model.save",
                         .what = "weights cannot be saved in this type",
                         .got = c10::toString(type),
                         .allowed = "float32, bfloat16, float16"});
  }
}

std::string generation_json(const DecoderConfig& config) {
  core::Json out = core::Json::object();
  if (config.bos_id) {
    out["bos_token_id"] = *config.bos_id;
  }
  if (config.eos_ids.size() == 1) {
    out["eos_token_id"] = config.eos_ids.front();
  } else if (!config.eos_ids.empty()) {
    out["eos_token_id"] = config.eos_ids;
  }
  if (config.pad_id) {
    out["pad_token_id"] = *config.pad_id;
  }
  return out.dump(2) + "\n";
}

void write_companions(const std::filesystem::path& folder,
                      const DecoderConfig& config,
                      const SaveOptions& options) {
  storage::FileSystem& files = storage::posix_filesystem();
  bool has_generation = false;
  if (!options.copy_from.empty() && !std::filesystem::equivalent(options.copy_from, folder)) {
    for (const char* name : kCompanions) {
      const std::filesystem::path from = std::filesystem::path(options.copy_from) / name;
      if (files.file_size(from).has_value()) {
        storage::write_file_atomic(files, folder / name, files.read_file(from, kCompanionBytes));
        has_generation = has_generation || std::string_view(name) == "generation_config.json";
      }
    }
  }
  if (!has_generation && !files.file_size(folder / "generation_config.json").has_value()) {
    storage::write_file_atomic(files, folder / "generation_config.json", generation_json(config));
  }
  storage::write_file_atomic(files, folder / "config.json", config_to_json(config, options.dtype));
}

std::vector<tensor::ParameterPtr> saved_parameters(const Decoder& decoder) {
  std::vector<tensor::ParameterPtr> saved = decoder.base_parameters();
  std::erase_if(saved, [](const auto& parameter) { return parameter->name == kValueHead; });
  return saved;
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()),
          static_cast<size_t>(tensor.nbytes())};
}

}  // namespace

void save_model(const std::string& directory,
                const Decoder& decoder,
                const FetchParameter& fetch,
                const SaveOptions& options) {
  const at::NoGradGuard no_grad;
  const std::filesystem::path folder(directory);
  const std::vector<tensor::ParameterPtr> parameters = saved_parameters(decoder);
  std::optional<storage::SafetensorsModelWriter> writer;
  if (options.writes) {
    storage::posix_filesystem().make_directories(folder);
    write_companions(folder, decoder.config(), options);
    std::vector<storage::TensorDeclaration> declarations;
    for (const tensor::ParameterPtr& parameter : parameters) {
      declarations.push_back({parameter->name, file_type(options.dtype), parameter->shape});
    }
    writer.emplace(folder, declarations, static_cast<uint64_t>(options.max_shard_bytes));
  }
  for (const tensor::ParameterPtr& parameter : parameters) {
    const at::Tensor whole = fetch(*parameter);
    if (writer) {
      const at::Tensor stored = whole.to(at::kCPU, options.dtype).contiguous();
      writer->write(parameter->name, bytes_of(stored));
    }
  }
  if (writer) {
    writer->finish();
  }
}

void save_model(const std::string& directory, const Decoder& decoder, const SaveOptions& options) {
  save_model(
      directory,
      decoder,
      [](const tensor::Parameter& parameter) { return parameter.value.detach(); },
      options);
}

}  // namespace kamerton::model
