// SPDX-License-Identifier: Apache-2.0
// LoRA (arXiv 2106.09685): y = W x + s B (A x). Rank-stabilised (2312.03732): s = alpha / sqrt(r).
// DoRA (2402.09353): y = (m / |W + s B A|) (W x + s B (A x)), the length of a row without gradient.
// PiSSA (2404.02948) and OLoRA (2406.01775): A and B are a part of W, which W then lacks.
#include <cmath>

#include <ATen/ATen.h>

#include "kamerton/tensor/linear.h"

#include "../low_rank.h"
#include "../method.h"
#include "../patterns.h"
#include "trained_tokens.h"

namespace kamerton::tuning {
namespace {

constexpr int64_t kRowsAtOnce = 256;  // of W + s B A

struct Pair {
  tensor::ParameterPtr a;  // [R, I]
  tensor::ParameterPtr b;  // [O, R]
  double scale;

  at::Tensor delta() const { return at::mm(wide(b), wide(a)).mul_(scale); }
};

/// Of one module: its first r parts, computed from the base's weight when somebody asks.
class Start {
 public:
  Start(const model::Linear& linear, std::string kind, int64_t r, double scale)
      : linear_(linear), kind_(std::move(kind)), r_(r), scale_(scale) {}

  bool takes_part() const { return kind_ == "pissa" || kind_ == "olora"; }
  at::Tensor a(const InitialContext& context) { return factors(context).a_RI; }
  at::Tensor b(const InitialContext& context) { return factors(context).b_OR; }
  at::Tensor rest(const at::Tensor& weight) const {
    const Factors part = split(weight);
    return weight - at::mm(part.b_OR, part.a_RI).mul_(scale_);
  }

 private:
  Factors split(const at::Tensor& weight) const {
    return kind_ == "pissa" ? principal_factors(weight, r_, scale_) : qr_factors(weight, r_);
  }
  /// A and B ask one after the other: the decomposition is kept for the second.
  Factors factors(const InitialContext& context) {
    if (!kept_.a_RI.defined()) {
      const at::Tensor stored = context.base(*linear_.weight).to(at::kFloat);
      kept_ = split(linear_.transposed ? stored.t() : stored);
      return kept_;
    }
    return std::exchange(kept_, {});
  }

  const model::Linear& linear_;
  std::string kind_;
  int64_t r_;
  double scale_;
  Factors kept_;
};

class LoraChange : public ModuleChange {
 public:
  LoraChange(Pair pair, double dropout, std::shared_ptr<Start> start)
      : pair_(std::move(pair)), dropout_(dropout), start_(std::move(start)) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const at::Tensor narrow = tensor::linear(use.dropped(x, dropout_), pair_.a);
    return at::add(use.linear.product(x), tensor::linear(narrow, pair_.b), pair_.scale);
  }
  at::Tensor merged(const at::Tensor& weight) const override { return weight + pair_.delta(); }
  bool changes_start() const override { return start_ != nullptr && start_->takes_part(); }
  at::Tensor starting(const at::Tensor& weight, const InitialContext&) const override {
    return start_->rest(weight);
  }

 protected:
  Pair pair_;
  double dropout_;
  std::shared_ptr<Start> start_;
};

class DoraChange final : public LoraChange {
 public:
  DoraChange(Pair pair, double dropout, tensor::ParameterPtr magnitude)
      : LoraChange(std::move(pair), dropout, nullptr), magnitude_(std::move(magnitude)) {}

  at::Tensor apply(const ModuleUse& use, const at::Tensor& x) const override {
    const at::Tensor share = (wide(magnitude_) / lengths(use.weight())).to(x.scalar_type());
    const at::Tensor kept = use.dropped(x, dropout_);
    const at::Tensor update = tensor::linear(tensor::linear(kept, pair_.a), pair_.b);
    if (kept.is_same(x)) {
      const at::Tensor base = use.linear.product(x, false);
      const at::Tensor out = share * at::add(base, update, pair_.scale);
      return use.linear.bias == nullptr ? out : out + use.linear.bias->value;
    }
    // PEFT: with dropout the weight's own part of the correction sees the dropped input too.
    const at::Tensor base = use.linear.product(kept, false);
    return use.linear.product(x) + (share - 1.0) * base + share * update * pair_.scale;
  }
  at::Tensor merged(const at::Tensor& weight) const override {
    const at::Tensor sum = weight + pair_.delta();
    return sum * (wide(magnitude_) / at::linalg_vector_norm(sum, 2, {1})).unsqueeze(1);
  }

 private:
  /// |W + s B A| of each row, fp32 [O], without gradient; a few rows at a time.
  at::Tensor lengths(const at::Tensor& weight) const {
    const at::NoGradGuard no_grad;
    const at::Tensor a = wide(pair_.a);
    const at::Tensor b = wide(pair_.b);
    at::Tensor lengths = at::empty({weight.size(0)}, a.options());
    for (int64_t o = 0; o < weight.size(0); o += kRowsAtOnce) {
      const int64_t n = std::min(kRowsAtOnce, weight.size(0) - o);
      const at::Tensor rows =
          at::addmm(weight.narrow(0, o, n).to(at::kFloat), b.narrow(0, o, n), a, 1, pair_.scale);
      lengths.narrow(0, o, n).copy_(at::linalg_vector_norm(rows, 2, {1}));
    }
    return lengths;
  }

  tensor::ParameterPtr magnitude_;
};

/// E[token] + s B A[:, token]; A [R, V], B [D, R].
class LoraEmbedding final : public model::EmbeddingExtension {
 public:
  LoraEmbedding(Pair pair, std::shared_ptr<DropoutKeys> switches)
      : pair_(std::move(pair)), switches_(std::move(switches)) {}

  at::Tensor apply(const at::Tensor& tokens_N, const at::Tensor& rows_ND) override {
    if (switches_->adapter_off) {
      return rows_ND;
    }
    const at::Tensor narrow = pair_.a->value.index_select(1, tokens_N).t();
    return at::add(rows_ND, at::mm(narrow, pair_.b->value.t()), pair_.scale);
  }

 private:
  Pair pair_;
  std::shared_ptr<DropoutKeys> switches_;
};

double scale_of(const Builder& builder, const std::string& module, int64_t r) {
  const double alpha = builder.by_pattern("alpha_pattern", module, builder.number("lora_alpha"));
  const auto rank = static_cast<double>(r);
  return alpha / (builder.flag("use_rslora") ? std::sqrt(rank) : rank);
}

int64_t rank_of(const Builder& builder, const std::string& module) {
  return static_cast<int64_t>(
      builder.by_pattern("rank_pattern", module, static_cast<double>(builder.count("r"))));
}

std::string start_of(const Builder& builder) {
  const core::Json& init = builder.spec().settings->at("init_lora_weights");
  const std::string kind = init.is_string() ? init.get<std::string>() : "default";
  // What an adapter of another kind has become in its file is plain LoRA.
  return kind == "gaussian" || kind == "pissa" || kind == "olora" ? kind : "default";
}

Pair add_pair(Builder& builder,
              model::Linear& linear,
              int64_t r,
              const std::shared_ptr<Start>& start) {
  Initial a = Initial::kaiming(linear.in_features);
  Initial b = Initial::constant(0);
  if (start->takes_part()) {
    a = Initial::computed([start](const InitialContext& context) { return start->a(context); });
    b = Initial::computed([start](const InitialContext& context) { return start->b(context); });
  } else if (start_of(builder) == "gaussian") {
    a = Initial::normal(1.0 / static_cast<double>(r));
  }
  const std::string at = linear.name + ".lora_A.weight";
  const std::vector<int64_t> shape = {r, linear.in_features};
  const tensor::ParameterPtr first = builder.flag("freeze_a")
                                         ? builder.add_frozen(linear.unit, at, shape, a)
                                         : builder.add(linear.unit, at, shape, a);
  return {first,
          builder.add(linear.unit, linear.name + ".lora_B.weight", {linear.out_features, r}, b),
          scale_of(builder, linear.name, r)};
}

/// PEFT keeps the length of a row under this name; it starts as the weight's own, since B is zero.
tensor::ParameterPtr add_magnitude(Builder& builder, const model::Linear& linear) {
  const model::Linear* module = &linear;
  return builder.add(linear.unit,
                     linear.name + ".lora_magnitude_vector",
                     {linear.out_features},
                     Initial::computed([module](const InitialContext& context) {
                       const at::Tensor w = context.base(*module->weight).to(at::kFloat);
                       return at::linalg_vector_norm(w, 2, {module->transposed ? 0 : 1});
                     }));
}

void attach_embedding(Builder& builder, const std::string& name) {
  const model::DecoderConfig& config = builder.decoder().config();
  const int64_t r = rank_of(builder, name);
  if (builder.flag("use_dora") || start_of(builder) != "default") {
    builder.refuse("the embedding can be a target of plain LoRA only", name, "linear modules");
  }
  const Pair pair{
      builder.add(0, name + ".lora_embedding_A", {r, config.vocab_size}, Initial::constant(0)),
      builder.add(0, name + ".lora_embedding_B", {config.hidden_size, r}, Initial::normal(1)),
      scale_of(builder, name, r)};
  builder.decoder().extensions().embedding =
      std::make_shared<LoraEmbedding>(pair, builder.switches());
  builder.merge_embedding([pair](const at::Tensor& weight) { return weight + pair.delta().t(); });
  if (config.tied_head) {
    builder.refuse_merge("the output head is tied to the embedding and would change with it");
  }
}

/// Rows of the embedding beside the factors: a list, or {NAME OF THE EMBEDDING: list}.
void attach_rows(Builder& builder, const std::string& embedding) {
  const core::Json& given = builder.spec().settings->at("trainable_token_indices");
  if (given.empty()) {
    return;
  }
  if (names_module(builder.spec(), embedding)) {
    builder.refuse("trainable_token_indices and the embedding as a target exclude each other",
                   "both",
                   "one of them");
  }
  if (!given.is_object()) {
    attach_tokens(builder, given, ".token_adapter");
    return;
  }
  for (const auto& [name, tokens] : given.items()) {
    if (given.size() != 1 || !any_names(std::vector<std::string>(1, name), embedding)) {
      builder.refuse(
          "rows of other modules than the embedding cannot be trained", given.dump(), embedding);
    }
    attach_tokens(builder, tokens, ".token_adapter");
  }
}

void attach_lora(Builder& builder) {
  const std::string embedding = builder.decoder().config().names.embedding;
  const bool dora = builder.flag("use_dora");
  if (dora && start_of(builder) != "default" && start_of(builder) != "gaussian") {
    builder.refuse("use_dora and this init exclude each other", start_of(builder), "init: default");
  }
  for (model::Linear* linear : builder.targeted({embedding})) {
    const int64_t r = rank_of(builder, linear->name);
    const int64_t most = std::min(linear->in_features, linear->out_features);
    const auto start =
        std::make_shared<Start>(*linear, start_of(builder), r, scale_of(builder, linear->name, r));
    if (start->takes_part() && r > most) {
      builder.refuse("the rank is above that of the weight of " + linear->name,
                     std::to_string(r),
                     "at most " + std::to_string(most));
    }
    const Pair pair = add_pair(builder, *linear, r, start);
    const double dropout = builder.number("lora_dropout");
    if (dora) {
      const tensor::ParameterPtr magnitude = add_magnitude(builder, *linear);
      builder.change(*linear, std::make_unique<DoraChange>(pair, dropout, magnitude));
    } else {
      builder.change(*linear, std::make_unique<LoraChange>(pair, dropout, start));
    }
  }
  if (names_module(builder.spec(), embedding)) {
    attach_embedding(builder, embedding);
  }
  attach_rows(builder, embedding);
}

}  // namespace

Method lora_method() {
  return {
      .name = "lora",
      .peft_type = "LORA",
      .text = "a low-rank update of linear modules (arXiv 2106.09685), with its relatives",
      .settings = {{"r", 8, "rank of the update"},
                   {"lora_alpha", 8.0, "scale: alpha / r"},
                   {"lora_dropout", 0.0, "probability that an input of A is dropped"},
                   {"use_rslora", false, "scale: alpha / sqrt(r)"},
                   {"use_dora", false, "a trained length for every row of the weight"},
                   {"init_lora_weights", true, "true, gaussian, pissa or olora"},
                   {"rank_pattern", core::Json::object(), "module expression -> rank"},
                   {"alpha_pattern", core::Json::object(), "module expression -> alpha"},
                   {"trainable_token_indices", nullptr, "rows of the embedding beside it: tokens"},
                   {"freeze_a", false, "train B only"}},
      .targets = {"all-linear"},
      .attach = attach_lora};
}

}  // namespace kamerton::tuning
