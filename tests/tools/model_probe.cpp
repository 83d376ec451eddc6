// SPDX-License-Identifier: Apache-2.0
// What this program computes from a model directory, for compare_model.py.
// usage: model_probe DIRECTORY IDS.json OUT.safetensors NEW_TOKENS
// IDS: [[id, ...], ...], one list a document; every next token is a target. OUT: logits [N, V] of
// all rows, loss (mean), grad.NAME of every tensor under its name in the checkpoint, greedy [K]:
// the continuation of the first document.
#include <cstdio>
#include <filesystem>
#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/core/json.h"
#include "kamerton/model/generate.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/storage/safetensors.h"

namespace {

using namespace kamerton;

using Documents = std::vector<std::vector<int64_t>>;

Documents read_documents(const std::string& path) {
  const std::string text = storage::posix_filesystem().read_file(path, uint64_t{1} << 30);
  return core::parse_json(text, path).get<Documents>();
}

at::Tensor next_tokens(const Documents& documents) {
  std::vector<int64_t> targets;
  for (const auto& document : documents) {
    targets.insert(targets.end(), document.begin() + 1, document.end());
    targets.push_back(tensor::kIgnoredTarget);
  }
  return at::tensor(targets, at::kLong);
}

std::map<std::string, at::Tensor> probe(const std::string& directory,
                                        const Documents& documents,
                                        int64_t new_tokens) {
  model::ModelOptions options;
  options.path = directory;
  options.dtype = "fp32";
  options.device = "cpu";
  model::Decoder decoder(model::read_config(directory), options);
  decoder.load_whole();
  std::map<std::string, at::Tensor> out;
  const model::Rows rows = model::Rows::from_documents(documents);
  const at::Tensor targets_N = next_tokens(documents);
  {
    const at::NoGradGuard no_grad;
    out["logits"] = decoder.logits(decoder.forward(rows)).contiguous();
  }
  tensor::TokenLossOptions loss_options;
  loss_options.scale = 1.0 / targets_N.ne(tensor::kIgnoredTarget).sum().item<double>();
  const tensor::TokenLoss loss = decoder.loss(decoder.forward(rows), targets_N, loss_options);
  torch::autograd::backward({loss.loss}, {});
  out["loss"] = loss.loss.detach().to(at::kFloat);
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    const at::Tensor gradient = parameter->value.grad();
    out["grad." + parameter->name] =
        gradient.defined() ? gradient.contiguous() : at::zeros(parameter->shape);
  }
  model::SampleOptions sampling;
  sampling.max_new_tokens = new_tokens;
  sampling.ignore_stop = true;
  out["greedy"] =
      at::tensor(model::generate(decoder, {documents.at(0)}, sampling)[0].tokens, at::kLong);
  return out;
}

void write(const std::string& path, const std::map<std::string, at::Tensor>& tensors) {
  std::vector<storage::TensorDeclaration> declarations;
  for (const auto& [name, tensor] : tensors) {
    declarations.push_back(
        {name,
         tensor.scalar_type() == at::kLong ? storage::DType::I64 : storage::DType::F32,
         tensor.sizes().vec()});
  }
  storage::SafetensorsWriter writer(path, declarations);
  for (const auto& [name, tensor] : tensors) {
    writer.write(name,
                 std::span(static_cast<const std::byte*>(tensor.const_data_ptr()),
                           static_cast<size_t>(tensor.nbytes())));
  }
  writer.finish();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: model_probe DIRECTORY IDS.json OUT.safetensors NEW_TOKENS\n");
    return 64;
  }
  try {
    write(argv[3], probe(argv[1], read_documents(argv[2]), std::stoll(argv[4])));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "model_probe: %s\n", error.what());
    return 1;
  }
}
