// SPDX-License-Identifier: Apache-2.0
// llama.cpp's architectures beside Hugging Face's: names of tensors and how they are stored.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace kamerton::model {

/// One architecture of llama.cpp.
struct GgufFamily {
  std::string_view gguf;          ///< general.architecture
  std::string_view architecture;  ///< config.json's "architectures"
  std::string_view model_type;
  /// Names of a layer's tensors: ("attn_q.weight" after "blk.N.", the same after
  /// "model.layers.N."). "*" stands for an expert's number: there all experts are one tensor.
  std::span<const std::pair<std::string_view, std::string_view>> layer_names;
  bool permuted = false;        ///< rows of q and k have rotary pairs interleaved
  bool norms_plus_one = false;  ///< norm weights are stored with their 1 added
  /// llama.cpp's pattern of sliding windows, built in: of `period` layers all but the last, 0:
  /// none.
  int64_t sliding_period = 0;
  bool experts = false;  ///< a mixture of experts; llama.cpp may give it a dense family's name
};

/// By llama.cpp's name and whether there are experts, for reading; null when it is not known.
const GgufFamily* gguf_family(std::string_view gguf, bool experts);
/// By Hugging Face's architecture, for writing; null when llama.cpp's form of it is not known.
const GgufFamily* gguf_family_of(std::string_view architecture);
/// "llama, qwen2, ..." of each column: those that can be read, those that can be written.
std::string gguf_families();
std::string gguf_writable_architectures();

/// Hugging Face's name, with a "*" where all experts are one tensor; "" for a tensor that has none
/// there (tables of rotary factors), nothing for one that this architecture does not have.
std::optional<std::string> name_from_gguf(const GgufFamily& family, const std::string& name);
std::optional<std::string> name_to_gguf(const GgufFamily& family, const std::string& name);

}  // namespace kamerton::model
