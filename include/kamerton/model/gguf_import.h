// SPDX-License-Identifier: Apache-2.0
// A GGUF file becomes a Hugging Face directory.
#pragma once

#include <map>
#include <string>

#include <ATen/core/Tensor.h>

namespace kamerton::model {

/// Reads `gguf_path` (llama, qwen2, qwen3, gemma2, phi3), dequantises, undoes what llama.cpp
/// changes (order of q and k rows, norms with their 1 added) and writes config.json,
/// generation_config.json, model.safetensors in `dtype` (kBFloat16 or kFloat) and `extra_files`
/// (name -> content: tokenizer.json and its companions) to `directory`, published at the end.
/// Throws ErrorKind::Data.
void import_gguf(const std::string& gguf_path,
                 const std::string& directory,
                 at::ScalarType dtype,
                 const std::map<std::string, std::string>& extra_files);

}  // namespace kamerton::model
