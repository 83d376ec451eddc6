// SPDX-License-Identifier: Apache-2.0
#include "gguf_names.h"

#include <array>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kamerton::model {
namespace {

using Name = std::pair<std::string_view, std::string_view>;

constexpr std::array<Name, 18> kCommon = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q.bias", "self_attn.q_proj.bias"},
    {"attn_k.bias", "self_attn.k_proj.bias"},
    {"attn_v.bias", "self_attn.v_proj.bias"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"attn_output.bias", "self_attn.o_proj.bias"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"ffn_gate.bias", "mlp.gate_proj.bias"},
    {"ffn_up.bias", "mlp.up_proj.bias"},
    {"ffn_down.bias", "mlp.down_proj.bias"},
}};

constexpr std::array<Name, 11> kGemma2 = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
}};

constexpr std::array<Name, 6> kPhi3 = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_qkv.weight", "self_attn.qkv_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_up.weight", "mlp.gate_up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
}};

/// The first with a name of llama.cpp is what reading takes.
constexpr std::array<GgufFamily, 6> kFamilies = {{
    {"llama", "LlamaForCausalLM", "llama", kCommon, true},
    {"llama", "MistralForCausalLM", "mistral", kCommon, true},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", kCommon},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", kCommon},
    {"gemma2", "Gemma2ForCausalLM", "gemma2", kGemma2, false, true},
    {"phi3", "Phi3ForCausalLM", "phi3", kPhi3},
}};
constexpr size_t kWritable = 4;

constexpr std::array<Name, 3> kOutside = {{
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
}};

/// "blk.12.attn_q.weight" -> ("12", "attn_q.weight") for the prefix "blk.".
std::optional<Name> split_layer(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) {
    return std::nullopt;
  }
  name.remove_prefix(prefix.size());
  const size_t dot = name.find('.');
  const std::string_view number = name.substr(0, dot);
  if (dot == std::string_view::npos || number.empty() ||
      number.find_first_not_of("0123456789") != std::string_view::npos) {
    return std::nullopt;
  }
  return Name(number, name.substr(dot + 1));
}

}  // namespace

const GgufFamily* gguf_family(std::string_view gguf) {
  for (const GgufFamily& family : kFamilies) {
    if (family.gguf == gguf) {
      return &family;
    }
  }
  return nullptr;
}

const GgufFamily* gguf_family_of(std::string_view architecture) {
  for (size_t i = 0; i < kWritable; ++i) {
    if (kFamilies[i].architecture == architecture) {
      return &kFamilies[i];
    }
  }
  return nullptr;
}

std::string gguf_families() {
  std::vector<std::string_view> names;
  for (const GgufFamily& family : kFamilies) {
    if (names.empty() || names.back() != family.gguf) {
      names.push_back(family.gguf);
    }
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string gguf_writable_architectures() {
  std::vector<std::string_view> names;
  for (size_t i = 0; i < kWritable; ++i) {
    names.push_back(kFamilies[i].architecture);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::optional<std::string> name_from_gguf(const GgufFamily& family, const std::string& name) {
  for (const auto& [gguf, ours] : kOutside) {
    if (name == gguf) {
      return std::string(ours);
    }
  }
  if (name == "rope_freqs.weight" || name.starts_with("rope_factors_")) {
    return "";
  }
  if (const auto layer = split_layer(name, "blk.")) {
    for (const auto& [gguf, ours] : family.layer_names) {
      if (layer->second == gguf) {
        return fmt::format("model.layers.{}.{}", layer->first, ours);
      }
    }
  }
  return std::nullopt;
}

std::optional<std::string> name_to_gguf(const GgufFamily& family, const std::string& name) {
  for (const auto& [gguf, ours] : kOutside) {
    if (name == ours) {
      return std::string(gguf);
    }
  }
  if (const auto layer = split_layer(name, "model.layers.")) {
    for (const auto& [gguf, ours] : family.layer_names) {
      if (layer->second == ours) {
        return fmt::format("blk.{}.{}", layer->first, gguf);
      }
    }
  }
  return std::nullopt;
}

}  // namespace kamerton::model
