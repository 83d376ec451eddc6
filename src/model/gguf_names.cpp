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

constexpr std::array<Name, 13> kGemma3 = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"post_attention_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_norm.weight", "pre_feedforward_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
    {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
}};

constexpr std::array<Name, 10> kMixtral = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate_inp.weight", "block_sparse_moe.gate.weight"},
    {"ffn_gate_exps.weight", "block_sparse_moe.experts.*.w1.weight"},
    {"ffn_up_exps.weight", "block_sparse_moe.experts.*.w3.weight"},
    {"ffn_down_exps.weight", "block_sparse_moe.experts.*.w2.weight"},
}};

constexpr std::array<Name, 12> kQwen3Moe = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_q_norm.weight", "self_attn.q_norm.weight"},
    {"attn_k_norm.weight", "self_attn.k_norm.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate_inp.weight", "mlp.gate.weight"},
    {"ffn_gate_exps.weight", "mlp.experts.*.gate_proj.weight"},
    {"ffn_up_exps.weight", "mlp.experts.*.up_proj.weight"},
    {"ffn_down_exps.weight", "mlp.experts.*.down_proj.weight"},
}};

constexpr std::array<Name, 6> kPhi3 = {{
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_qkv.weight", "self_attn.qkv_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_up.weight", "mlp.gate_up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
}};

/// The first with a name of llama.cpp, with or without experts, is what reading takes.
constexpr std::array<GgufFamily, 9> kFamilies = {{
    {"llama", "LlamaForCausalLM", "llama", kCommon, true},
    {"llama", "MistralForCausalLM", "mistral", kCommon, true},
    {.gguf = "llama",
     .architecture = "MixtralForCausalLM",
     .model_type = "mixtral",
     .layer_names = kMixtral,
     .permuted = true,
     .experts = true},
    {"qwen2", "Qwen2ForCausalLM", "qwen2", kCommon},
    {"qwen3", "Qwen3ForCausalLM", "qwen3", kCommon},
    {.gguf = "qwen3moe",
     .architecture = "Qwen3MoeForCausalLM",
     .model_type = "qwen3_moe",
     .layer_names = kQwen3Moe,
     .experts = true},
    {"gemma2", "Gemma2ForCausalLM", "gemma2", kGemma2, false, true, 2},
    {"gemma3", "Gemma3ForCausalLM", "gemma3_text", kGemma3, false, true, 6},
    {"phi3", "Phi3ForCausalLM", "phi3", kPhi3},
}};

constexpr std::array<Name, 3> kOutside = {{
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
}};

/// Whether `name` is `pattern`, digits in place of its "*".
bool matches(std::string_view pattern, std::string_view name) {
  const size_t star = pattern.find('*');
  if (star == std::string_view::npos) {
    return pattern == name;
  }
  const std::string_view head = pattern.substr(0, star);
  const std::string_view tail = pattern.substr(star + 1);
  if (name.size() <= head.size() + tail.size() || !name.starts_with(head) ||
      !name.ends_with(tail)) {
    return false;
  }
  return name.substr(head.size(), name.size() - head.size() - tail.size())
             .find_first_not_of("0123456789") == std::string_view::npos;
}

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

/// Files of early 2024 have one tensor an expert: of "ffn_up_exps.weight" the number in
/// "ffn_up.3.weight", nothing for other names.
std::optional<std::string_view> expert_of(std::string_view all, std::string_view name) {
  constexpr std::string_view kAll = "_exps.weight";
  constexpr std::string_view kTail = ".weight";
  if (!all.ends_with(kAll)) {
    return std::nullopt;
  }
  const std::string_view head = all.substr(0, all.size() - kAll.size());
  if (name.size() <= head.size() + 1 + kTail.size() || !name.starts_with(head) ||
      name[head.size()] != '.' || !name.ends_with(kTail)) {
    return std::nullopt;
  }
  const size_t begin = head.size() + 1;
  const std::string_view number = name.substr(begin, name.size() - begin - kTail.size());
  return number.find_first_not_of("0123456789") == std::string_view::npos ? std::optional(number)
                                                                          : std::nullopt;
}

}  // namespace

const GgufFamily* gguf_family(std::string_view gguf, bool experts) {
  for (const GgufFamily& family : kFamilies) {
    if (family.gguf == gguf && family.experts == experts) {
      return &family;
    }
  }
  return nullptr;
}

const GgufFamily* gguf_family_of(std::string_view architecture) {
  for (const GgufFamily& family : kFamilies) {
    if (family.architecture == architecture) {
      return &family;
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
  for (const GgufFamily& family : kFamilies) {
    names.push_back(family.architecture);
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
      if (const auto expert = expert_of(gguf, layer->second)) {
        std::string target(ours);
        target.replace(target.find('*'), 1, *expert);
        return fmt::format("model.layers.{}.{}", layer->first, target);
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
      if (matches(ours, layer->second)) {
        return fmt::format("blk.{}.{}", layer->first, gguf);
      }
    }
  }
  return std::nullopt;
}

}  // namespace kamerton::model
