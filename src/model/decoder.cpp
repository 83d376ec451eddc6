// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/decoder.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/tensor/linear.h"

#include "attention_cache.h"
#include "decoder_impl.h"
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

}  // namespace

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
  if (wish != "auto") {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "model.decoder",
                       .what = "the dtype is not known",
                       .got = wish,
                       .allowed = "auto, fp32, bf16"});
  }
  const bool fast = !device.is_cpu() || processor_multiplies_bf16();
  return stored != at::kFloat && fast ? at::kBFloat16 : at::kFloat;
}

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

/// One use of the unit "embed"; positions undefined: tokens only. With a prompt, positions are
/// those of all rows.
at::Tensor Decoder::Impl::embed(const at::Tensor& tokens_N,
                                const at::Tensor& positions_N,
                                const std::shared_ptr<const LeadRows>& prompt) {
  const at::Tensor anchor = at::empty({0}, at::TensorOptions(device).dtype(at::kFloat));
  const at::Tensor ids_N = tokens_N.to(device);
  const at::Tensor places_N = positions_N.defined() ? positions_N.to(device) : positions_N;
  // Rounded to the computing type, as the reference's buffer is.
  const double scale =
      dtype == at::kBFloat16
          ? static_cast<float>(c10::BFloat16(static_cast<float>(config.embedding_scale)))
          : config.embedding_scale;
  const auto body = [this, ids_N, places_N, scale, prompt](const at::Tensor& in) {
    at::Tensor x = tensor::embedding(ids_N, embedding, in);
    if (extensions.embedding != nullptr) {
      x = extensions.embedding->apply(ids_N, x);
    }
    if (scale != 1.0) {
      x = x * scale;
    }
    if (prompt != nullptr) {
      x = prompt->insert(x, extensions.prompt->rows());
    }
    return places_N.defined() ? x + tensor::embedding(places_N, positions, in) : x;
  };
  return tensor::run_unit(hooks, units.front(), anchor, false, body);
}

/// What stands before the documents that begin here; null: nothing.
std::shared_ptr<LeadRows> Decoder::Impl::lead_rows(const Rows& rows,
                                                   const AttentionCache* cache) const {
  if (extensions.lead_rows == 0) {
    return nullptr;
  }
  std::vector<bool> begins(rows.document_offsets.size() - 1, true);
  for (size_t d = 0; cache != nullptr && d < begins.size(); ++d) {
    begins[d] = cache->begins(d);
  }
  if (std::find(begins.begin(), begins.end(), true) == begins.end()) {
    return nullptr;
  }
  auto lead = std::make_shared<LeadRows>(rows.document_offsets, extensions.lead_rows, begins);
  lead->to(device);
  return lead;
}

/// For embeddings that come from elsewhere: a use of the unit "embed" of its own.
at::Tensor Decoder::Impl::add_positions(const at::Tensor& x_ND, const at::Tensor& positions_N) {
  const at::Tensor places_N = positions_N.to(device);
  return tensor::run_unit(
      hooks, units.front(), x_ND, false, [this, places_N](const at::Tensor& in) {
        return in + tensor::embedding(places_N, positions, in.narrow(0, 0, 0));
      });
}

BlockContext Decoder::Impl::context_of(const Rows& rows,
                                       AttentionCache* cache,
                                       const std::shared_ptr<const LeadRows>& lead) const {
  BlockContext context;
  context.offsets = lead != nullptr
                        ? lead->offsets()
                        : std::make_shared<const std::vector<int64_t>>(rows.document_offsets);
  context.cache = cache;
  context.prefix = extensions.prompt == nullptr ? lead : nullptr;
  if (config.rotary) {
    const at::Tensor places_N =
        lead != nullptr ? lead->positions(rows.positions_N) : rows.positions_N.to(device);
    context.rotary = rotary_table(config, config.rope, places_N, *context.offsets);
    if (config.local_rope) {
      context.local_rotary = rotary_table(config, *config.local_rope, places_N, *context.offsets);
    }
    if (context.prefix != nullptr) {
      lead->keep_lead_unrotated(context.rotary);
      lead->keep_lead_unrotated(context.local_rotary);
    }
  }
  return context;
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
Extensions& Decoder::extensions() {
  return impl_->extensions;
}

std::vector<std::string> Decoder::norms() const {
  std::vector<std::string> names;
  for (const Block& block : impl_->blocks) {
    for (const Norm* norm : block.norms()) {
      names.push_back(norm->name);
    }
  }
  names.push_back(impl_->final_norm.name);
  return names;
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

const std::vector<tensor::ParameterPtr>& Decoder::base_parameters() const {
  return impl_->base;
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

int64_t DecoderConfig::context() const {
  const bool grows = rotary && rope.type == "dynamic";
  return grows ? static_cast<int64_t>(static_cast<double>(max_positions) * rope.factor)
               : max_positions;
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
  const auto lead = impl_->lead_rows(rows, cache);
  const auto prompt = impl_->extensions.prompt != nullptr ? lead : nullptr;
  at::Tensor places_N;
  if (impl_->config.learned_positions()) {
    places_N = lead == nullptr ? rows.positions_N : lead->own_positions(rows.positions_N);
    places_N = prompt == nullptr ? places_N : prompt->positions(rows.positions_N);
  }
  at::Tensor x;
  if (!embeddings_ND.defined()) {
    x = impl_->embed(rows.tokens_N, places_N, prompt);
  } else {
    x = places_N.defined() ? impl_->add_positions(embeddings_ND, places_N) : embeddings_ND;
  }
  BlockContext context = impl_->context_of(rows, cache, lead);
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
    cache->advance(*context.offsets);
  }
  return prompt == nullptr ? x : prompt->own(x);
}

}  // namespace kamerton::model
