// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/decoder.h"

#include <deque>
#include <unordered_map>

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/model/weights.h"
#include "kamerton/tensor/experts.h"
#include "kamerton/tensor/linear.h"

#include "attention_cache.h"
#include "block.h"
#include "declare.h"
#include "norm.h"
#include "rope.h"

namespace kamerton::model {
namespace {

bool processor_multiplies_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

/// ATen has CUDA only when the program has loaded the plug-in; the thread's current device is ours.
at::Device resolve_device(const std::string& wish) {
  const bool present = wish != "cpu" && at::hasCUDA();
  if (wish == "cuda" && !present) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "model.decoder",
                       .what = "there is no GPU to compute on",
                       .got = "device cuda",
                       .allowed = "auto, cpu",
                       .hint = "kamerton doctor says what is missing"});
  }
  return present ? c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getDevice()
                 : at::Device(at::kCPU);
}

at::ScalarType resolve_dtype(const std::string& wish, at::ScalarType stored, at::Device device) {
  if (wish == "fp32") {
    return at::kFloat;
  }
  if (wish == "bf16") {
    return at::kBFloat16;
  }
  const bool fast = !device.is_cpu() || processor_multiplies_bf16();
  return stored != at::kFloat && fast ? at::kBFloat16 : at::kFloat;
}

}  // namespace

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
    return tensor::run_unit(
        hooks,
        units[i + 1],
        x,
        checkpoint && at::GradMode::is_enabled(),
        [block, context, norm](const at::Tensor& in) { return block->forward(in, context, norm); });
  }
  void check_rows(const Rows& rows) const;
  at::Tensor embed(const at::Tensor& tokens_N, const at::Tensor& positions_N);
  at::Tensor add_positions(const at::Tensor& x_ND, const at::Tensor& positions_N);
  BlockContext context_of(const Rows& rows, AttentionCache* cache) const;
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
  std::vector<tensor::ParamUnit> units;
  std::deque<Block> blocks;  // linears are pointed at: they must not move
  tensor::ParameterPtr embedding, positions, head;
  tensor::ParameterPtr value;  // null without a value head
  size_t head_index = 0;       // of its unit
  Norm final_norm;
  std::vector<Linear*> linears;
  std::unordered_map<std::string, tensor::ParameterPtr> by_name;
  std::unordered_map<std::string, Linear*> linear_by_name;
  std::function<void(int64_t, const at::Tensor&)> observer;
  std::function<void(int64_t, const at::Tensor&)> router_observer;
  double router_strength = 0.0;
  std::shared_ptr<tensor::RouterTotals> router_totals;  // of the last forward
};

void Decoder::Impl::check_rows(const Rows& rows) const {
  const bool whole = rows.document_offsets.size() >= 2 && rows.document_offsets.front() == 0 &&
                     rows.document_offsets.back() == rows.positions_N.size(0);
  if (!whole) {
    throw core::Error(
        core::ErrorKind::Internal,
        {.where = "model.decoder",
         .what = "document offsets do not cover the rows",
         .got = fmt::format(
             "{} offsets for {} rows", rows.document_offsets.size(), rows.positions_N.size(0)),
         .allowed = "first 0, last the number of rows"});
  }
  if (config.learned_positions() && rows.positions_N.numel() > 0) {
    const auto largest = rows.positions_N.max().item<int64_t>();
    if (largest >= config.max_positions) {
      throw core::Error(core::ErrorKind::Data,
                        {.where = "model.decoder",
                         .what = "a document is longer than the model has positions for",
                         .got = fmt::format("{} tokens", largest + 1),
                         .allowed = fmt::format("at most {}", config.max_positions)});
    }
  }
}

/// One use of the unit "embed"; positions undefined: tokens only.
at::Tensor Decoder::Impl::embed(const at::Tensor& tokens_N, const at::Tensor& positions_N) {
  const at::Tensor anchor = at::empty({0}, at::TensorOptions(device).dtype(at::kFloat));
  const at::Tensor ids_N = tokens_N.to(device);
  const at::Tensor places_N = positions_N.defined() ? positions_N.to(device) : positions_N;
  // Rounded to the computing type, as the reference's buffer is.
  const double scale =
      dtype == at::kBFloat16
          ? static_cast<float>(c10::BFloat16(static_cast<float>(config.embedding_scale)))
          : config.embedding_scale;
  return tensor::run_unit(
      hooks, units.front(), anchor, false, [this, ids_N, places_N, scale](const at::Tensor& in) {
        at::Tensor x = tensor::embedding(ids_N, embedding, in);
        if (scale != 1.0) {
          x = x * scale;
        }
        return places_N.defined() ? x + tensor::embedding(places_N, positions, in) : x;
      });
}

/// For embeddings that come from elsewhere: a use of the unit "embed" of its own.
at::Tensor Decoder::Impl::add_positions(const at::Tensor& x_ND, const at::Tensor& positions_N) {
  const at::Tensor places_N = positions_N.to(device);
  return tensor::run_unit(
      hooks, units.front(), x_ND, false, [this, places_N](const at::Tensor& in) {
        return in + tensor::embedding(places_N, positions, in.narrow(0, 0, 0));
      });
}

BlockContext Decoder::Impl::context_of(const Rows& rows, AttentionCache* cache) const {
  BlockContext context;
  context.offsets = std::make_shared<const std::vector<int64_t>>(rows.document_offsets);
  context.cache = cache;
  if (config.rotary) {
    const at::Tensor places_N = rows.positions_N.to(device);
    context.rotary = rotary_table(config, config.rope, places_N, *context.offsets);
    if (config.local_rope) {
      context.local_rotary = rotary_table(config, *config.local_rope, places_N, *context.offsets);
    }
  }
  return context;
}

at::Tensor Decoder::Impl::shaped_logits(const at::Tensor& logits) const {
  at::Tensor z = logits;
  if (config.score_head) {
    return z;
  }
  if (config.logit_scale != 1.0) {
    z = z * config.logit_scale;
  }
  if (config.logit_cap > 0) {
    z = at::tanh(z / config.logit_cap) * config.logit_cap;
  }
  return z;
}

Rows Rows::from_documents(const std::vector<std::vector<int64_t>>& documents) {
  std::vector<int64_t> tokens;
  std::vector<int64_t> positions;
  Rows rows;
  rows.document_offsets.push_back(0);
  for (const std::vector<int64_t>& document : documents) {
    for (size_t i = 0; i < document.size(); ++i) {
      tokens.push_back(document[i]);
      positions.push_back(static_cast<int64_t>(i));
    }
    rows.document_offsets.push_back(static_cast<int64_t>(tokens.size()));
  }
  rows.tokens_N = at::tensor(tokens, at::kLong);
  rows.positions_N = at::tensor(positions, at::kLong);
  return rows;
}

Decoder::Decoder(DecoderConfig config, const ModelOptions& options)
    : impl_(std::make_unique<Impl>(std::move(config), options)) {}
Decoder::~Decoder() = default;

const DecoderConfig& Decoder::config() const {
  return impl_->config;
}
at::ScalarType Decoder::dtype() const {
  return impl_->dtype;
}
at::Device Decoder::device() const {
  return impl_->device;
}
std::vector<tensor::ParamUnit>& Decoder::units() {
  return impl_->units;
}
const std::vector<tensor::ParamUnit>& Decoder::units() const {
  return impl_->units;
}
const std::vector<Linear*>& Decoder::linears() const {
  return impl_->linears;
}
void Decoder::set_hooks(tensor::UnitHooks* hooks) {
  impl_->hooks = hooks;
}

std::vector<tensor::ParameterPtr> Decoder::parameters() const {
  std::vector<tensor::ParameterPtr> all;
  for (const tensor::ParamUnit& unit : impl_->units) {
    all.insert(all.end(), unit.parameters.begin(), unit.parameters.end());
  }
  return all;
}

tensor::ParameterPtr Decoder::find_parameter(const std::string& name) const {
  const auto found = impl_->by_name.find(name);
  return found == impl_->by_name.end() ? nullptr : found->second;
}

Linear* Decoder::find_linear(const std::string& name) const {
  const auto found = impl_->linear_by_name.find(name);
  return found == impl_->linear_by_name.end() ? nullptr : found->second;
}

void Decoder::set_observer(std::function<void(int64_t, const at::Tensor&)> observer) {
  impl_->observer = std::move(observer);
}

void Decoder::set_router_observer(std::function<void(int64_t, const at::Tensor&)> observer) {
  impl_->router_observer = std::move(observer);
}

void Decoder::set_router_strength(double strength) {
  impl_->router_strength = strength;
}

double Decoder::router_loss() const {
  return impl_->router_totals == nullptr ? 0.0 : impl_->router_totals->loss();
}

double Decoder::router_coefficient() const {
  const ExpertsConfig& experts = impl_->config.experts;
  const double otherwise = experts.output_router_logits ? experts.aux_coefficient : 0.0;
  return experts.count == 0 ? 0.0 : impl_->options.router_aux_loss_coef.value_or(otherwise);
}

void Decoder::load_whole() {
  const std::unique_ptr<WeightSource> source = open_weights(impl_->options, *this);
  tensor::place_whole(impl_->units, impl_->dtype, impl_->device);
  const at::NoGradGuard no_grad;
  for (const tensor::ParameterPtr& parameter : parameters()) {
    if (!parameter->adapter) {
      source->read(*parameter, 0, parameter->value.detach().view({-1}));
    }
  }
}

int64_t DecoderConfig::parameter_count() const {
  ModelOptions options;
  options.device = "cpu";
  const Decoder decoder(*this, options);
  int64_t total = 0;
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    total += parameter->numel();
  }
  return total;
}

at::Tensor Decoder::embed(const at::Tensor& tokens_N) {
  return impl_->embed(tokens_N, {});
}

at::Tensor Decoder::forward(const Rows& rows,
                            const at::Tensor& embeddings_ND,
                            AttentionCache* cache) {
  impl_->check_rows(rows);
  const bool places = impl_->config.learned_positions();
  at::Tensor x;
  if (!embeddings_ND.defined()) {
    x = impl_->embed(rows.tokens_N, places ? rows.positions_N : at::Tensor());
  } else {
    x = places ? impl_->add_positions(embeddings_ND, rows.positions_N) : embeddings_ND;
  }
  BlockContext context = impl_->context_of(rows, cache);
  context.router_totals = impl_->count_routers();
  context.router_observer = impl_->router_observer;
  if (impl_->observer) {
    impl_->observer(-1, x);
  }
  for (size_t i = 0; i < impl_->blocks.size(); ++i) {
    x = impl_->run_block(i, x, context);
    if (impl_->observer) {
      impl_->observer(static_cast<int64_t>(i), x);
    }
  }
  if (impl_->router_totals != nullptr) {
    impl_->router_totals->close();
  }
  if (cache != nullptr) {
    cache->advance(rows.document_offsets);
  }
  return x;
}

at::Tensor Decoder::logits(const at::Tensor& hidden_MD) {
  return tensor::run_unit(
      impl_->hooks, impl_->head_unit(), hidden_MD, false, [this](const at::Tensor& in) {
        return impl_->shaped_logits(tensor::linear(in, impl_->head).to(at::kFloat));
      });
}

tensor::TokenLoss Decoder::loss(const at::Tensor& hidden_ND,
                                const at::Tensor& targets_N,
                                tensor::TokenLossOptions options) {
  tensor::TokenLoss result;
  tensor::run_unit_fused(impl_->hooks, impl_->head_unit(), [&] {
    result = tensor::token_loss(hidden_ND, impl_->head, targets_N, impl_->head_options(options));
  });
  return result;
}

at::Tensor Decoder::log_probs(const at::Tensor& hidden_ND,
                              const at::Tensor& targets_N,
                              double temperature) {
  tensor::TokenLossOptions options = impl_->head_options();
  options.logit_scale /= temperature;
  options.soft_cap /= temperature;  // cap tanh(z / cap) / T is (cap / T) tanh((z / T) / (cap / T))
  return tensor::run_unit(impl_->hooks,
                          impl_->head_unit(),
                          hidden_ND,
                          false,
                          [this, targets_N, options](const at::Tensor& in) {
                            return tensor::token_log_probs(in, impl_->head, targets_N, options);
                          });
}

at::Tensor Decoder::values(const at::Tensor& hidden_ND) {
  return tensor::run_unit(
      impl_->hooks, impl_->units.back(), hidden_ND, false, [this](const at::Tensor& in) {
        return tensor::linear(in, impl_->value).squeeze(1).to(at::kFloat);
      });
}

at::Tensor Decoder::log_collisions(const at::Tensor& hidden_ND, const at::Tensor& targets_N) {
  const at::NoGradGuard no_grad;
  at::Tensor result;
  tensor::run_unit_fused(impl_->hooks, impl_->head_unit(), [&] {
    result = tensor::log_collisions(hidden_ND, impl_->head, targets_N, impl_->head_options());
  });
  return result;
}

at::Tensor Decoder::logits_loss(const at::Tensor& hidden_ND,
                                const at::Tensor& rows_M,
                                const tensor::ChunkLoss& loss) {
  at::Tensor result;
  tensor::run_unit_fused(impl_->hooks, impl_->head_unit(), [&] {
    result = tensor::logits_loss(hidden_ND, impl_->head, rows_M, loss, impl_->head_options());
  });
  return result;
}

void Decoder::with_logits(const std::function<void(const tensor::LogitsOf&)>& body) {
  const bool records = at::GradMode::is_enabled();
  const at::NoGradGuard no_grad;  // of this head; what the body computes of others is its own
  tensor::run_unit_fused(impl_->hooks, impl_->head_unit(), [&] {
    const tensor::LogitsOf logits = tensor::logits_of(impl_->head, impl_->head_options());
    const at::AutoGradMode mode(records);
    body(logits);
  });
}

}  // namespace kamerton::model
