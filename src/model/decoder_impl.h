// SPDX-License-Identifier: Apache-2.0
// What a decoder is made of.
#pragma once

#include <deque>
#include <unordered_map>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/model/decoder.h"
#include "kamerton/model/weights.h"
#include "kamerton/tensor/experts.h"

#include "block.h"
#include "declare.h"
#include "lead_rows.h"
#include "norm.h"

namespace kamerton::model {

/// ATen has CUDA only when the program has loaded the plug-in; the thread's current device is ours.
at::Device resolve_device(const std::string& wish);
at::ScalarType resolve_dtype(const std::string& wish, at::ScalarType stored, at::Device device);

struct Decoder::Impl {
  Impl(DecoderConfig c, const ModelOptions& o)
      : config(o.score_head ? as_scorer(std::move(c), o.score_pad) : std::move(c)),
        options(o),
        device(resolve_device(o.device)),
        dtype(resolve_dtype(o.dtype, config.stored_dtype, device)),
        checkpoint(o.activation_checkpointing == "block") {
    declare_all();
    for (tensor::ParamUnit& unit : units) {
      for (const tensor::ParameterPtr& parameter : unit.parameters) {
        by_name[parameter->name] = parameter;
        base.push_back(parameter);
      }
    }
    for (Block& block : blocks) {
      for (Linear* linear : block.linears()) {
        linears.push_back(linear);
        linear_by_name[linear->name] = linear;
      }
    }
  }

  void declare_all() {
    const auto add_unit = [this](std::string name) -> tensor::ParamUnit& {
      tensor::ParamUnit& unit = units.emplace_back();
      unit.index = static_cast<int>(units.size()) - 1;
      unit.name = std::move(name);
      return unit;
    };
    const ModuleNames& names = config.names;
    const std::vector<int64_t> table = {config.vocab_size, config.hidden_size};
    embedding = declare(add_unit("embed"), names.embedding + ".weight", table);
    if (config.learned_positions()) {
      positions = declare(
          units.back(), names.positions + ".weight", {config.max_positions, config.hidden_size});
    }
    for (int64_t i = 0; i < config.layers; ++i) {
      blocks.emplace_back(config, i, add_unit(fmt::format("layers.{}", i)));
    }
    final_norm = declare_norm(units.back(), "", names.final_norm, config.hidden_size, config);
    if (!config.tied_head) {
      const int64_t outputs = config.score_head ? 1 : config.vocab_size;
      head = declare(add_unit("head"), names.head + ".weight", {outputs, config.hidden_size});
      head_index = units.size() - 1;
    } else {
      head = embedding;
    }
    if (options.value_head) {
      value = declare(add_unit("value"), kValueHead, {1, config.hidden_size});
    }
  }

  const tensor::ParamUnit& head_unit() const { return units[head_index]; }
  tensor::TokenLossOptions head_options(tensor::TokenLossOptions wish = {}) const {
    if (wish.chunk_rows == 0) {
      wish.chunk_rows = options.head_chunk_rows;
    }
    wish.logit_scale *= config.logit_scale;
    wish.soft_cap = config.logit_cap;
    return wish;
  }
  at::Tensor run_block(size_t i, const at::Tensor& x, const BlockContext& context) {
    const Block* block = &blocks[i];
    const Norm norm = i + 1 == blocks.size() ? final_norm : Norm{};
    BlockExtension* extension = i < extensions.blocks.size() ? extensions.blocks[i].get() : nullptr;
    return tensor::run_unit(hooks,
                            units[i + 1],
                            x,
                            checkpoint && at::GradMode::is_enabled(),
                            [block, context, norm, extension](const at::Tensor& in) {
                              return block->forward(in, context, norm, extension);
                            });
  }
  void check_rows(const Rows& rows) const;
  at::Tensor embed(const at::Tensor& tokens_N,
                   const at::Tensor& positions_N,
                   const std::shared_ptr<const LeadRows>& prompt = nullptr);
  std::shared_ptr<LeadRows> lead_rows(const Rows& rows, const AttentionCache* cache) const;
  bool own_head() const { return config.tied_head && extensions.embedding != nullptr; }
  /// One use of the head as the fused form, with the weight that it computes with.
  void fused_head(const std::function<void(const tensor::ParameterPtr&)>& body);
  at::Tensor with_head(
      const at::Tensor& hidden,
      const std::function<at::Tensor(const at::Tensor&, const tensor::ParameterPtr&)>& body);
  at::Tensor add_positions(const at::Tensor& x_ND, const at::Tensor& positions_N);
  BlockContext context_of(const Rows& rows,
                          AttentionCache* cache,
                          const std::shared_ptr<const LeadRows>& lead) const;
  at::Tensor shaped_logits(const at::Tensor& logits) const;
  /// New sums for a forward pass that begins.
  std::shared_ptr<tensor::RouterTotals> count_routers() {
    router_totals = config.experts.count > 0 ? std::make_shared<tensor::RouterTotals>(
                                                   config.experts.count, router_strength)
                                             : nullptr;
    return router_totals;
  }

  DecoderConfig config;
  ModelOptions options;
  at::Device device;
  at::ScalarType dtype;
  bool checkpoint;
  tensor::UnitHooks* hooks = nullptr;
  Extensions extensions;
  std::vector<tensor::ParamUnit> units;
  std::deque<Block> blocks;  // linears are pointed at: they must not move
  tensor::ParameterPtr embedding, positions, head;
  tensor::ParameterPtr value;  // null without a value head
  size_t head_index = 0;       // of its unit
  Norm final_norm;
  std::vector<Linear*> linears;
  std::vector<tensor::ParameterPtr> base;
  std::unordered_map<std::string, tensor::ParameterPtr> by_name;
  std::unordered_map<std::string, Linear*> linear_by_name;
  std::function<void(int64_t, const at::Tensor&)> observer;
  std::function<void(int64_t, const at::Tensor&)> router_observer;
  double router_strength = 0.0;
  std::shared_ptr<tensor::RouterTotals> router_totals;  // of the last forward
};

}  // namespace kamerton::model
