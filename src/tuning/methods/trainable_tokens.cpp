// SPDX-License-Identifier: Apache-2.0
// Trainable tokens (PEFT): chosen rows of the embedding are replaced by trained ones, in a tied
// head too.
#include <set>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "../method.h"
#include "../patterns.h"
#include "trained_tokens.h"

namespace kamerton::tuning {
namespace {

/// The gradient of the head's own weight, at the chosen rows, goes to the trained ones.
void fold(const tensor::ParameterPtr& own,
          const tensor::ParameterPtr& rows,
          const at::Tensor& tokens) {
  const at::NoGradGuard no_grad;
  rows->accumulator().add_(own->accumulator().index_select(0, tokens));
}

/// The identity; its backward comes after the head's.
struct FoldStep : torch::autograd::Function<FoldStep> {
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& hidden,
                            std::function<void()> take_over) {
    context->saved_data["fold"] =
        c10::IValue::make_capsule(c10::make_intrusive<Holder>(std::move(take_over)));
    return hidden.view_as(hidden);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    static_cast<Holder&>(*context->saved_data["fold"].toCapsule()).take_over();
    return {grads[0], {}};
  }

 private:
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::function<void()> f) : take_over(std::move(f)) {}
    std::function<void()> take_over;
  };
};

class TrainedTokens final : public model::EmbeddingExtension {
 public:
  TrainedTokens(tensor::ParameterPtr rows,
                at::Tensor tokens,
                int64_t vocabulary,
                std::shared_ptr<DropoutKeys> switches)
      : rows_(std::move(rows)), tokens_(std::move(tokens)), switches_(std::move(switches)) {
    place_V_ = at::full({vocabulary}, -1, tokens_.options());
    place_V_.index_copy_(0, tokens_, at::arange(tokens_.numel(), tokens_.options()));
  }

  at::Tensor apply(const at::Tensor& tokens_N, const at::Tensor& rows_ND) override {
    if (switches_->adapter_off) {
      return rows_ND;
    }
    const at::Tensor place_N = place_V_.index_select(0, tokens_N);
    const at::Tensor where = place_N.ge(0).nonzero().flatten();
    return rows_ND.index_copy(
        0, where, rows_->value.index_select(0, place_N.index_select(0, where)));
  }

  /// The tied weight with the trained rows in it: a copy for one use.
  tensor::ParameterPtr head(const tensor::ParameterPtr& tied) override {
    if (switches_->adapter_off) {
      return tied;
    }
    const at::NoGradGuard no_grad;
    auto own = std::make_shared<tensor::Parameter>();
    own->name = tied->name;
    own->shape = tied->shape;
    own->trainable = rows_->trainable;
    own->value = tied->value.index_copy(0, tokens_, rows_->value);
    return own;
  }
  at::Tensor before_head(const at::Tensor& hidden, const tensor::ParameterPtr& own) override {
    if (!own->trainable || !at::GradMode::is_enabled() || !hidden.requires_grad()) {
      return hidden;
    }
    return FoldStep::apply(hidden,
                           [own, rows = rows_, tokens = tokens_] { fold(own, rows, tokens); });
  }
  void fold_head(const tensor::ParameterPtr& own) override {
    if (own->trainable) {
      fold(own, rows_, tokens_);
    }
  }

 private:
  tensor::ParameterPtr rows_;  // [tokens, D]
  at::Tensor tokens_;
  at::Tensor place_V_;  // -1: not a trained token
  std::shared_ptr<DropoutKeys> switches_;
};

std::vector<int64_t> checked(const Builder& builder, const core::Json& given, int64_t vocabulary) {
  std::set<int64_t> tokens;
  if (!given.is_array()) {
    builder.refuse("the indices of tokens are no list", given.dump(), "[5, 7]");
  }
  for (const core::Json& token : given) {
    const bool right =
        token.is_number_integer() && token.get<int64_t>() >= 0 && token.get<int64_t>() < vocabulary;
    if (!right || !tokens.insert(token.get<int64_t>()).second) {
      builder.refuse("the indices of tokens hold something else than tokens, each once",
                     token.dump(),
                     "0 to " + std::to_string(vocabulary - 1));
    }
  }
  if (tokens.empty()) {
    builder.refuse("no token is named", given.dump(), "settings: ['token_indices=[5, 7]']");
  }
  return given.get<std::vector<int64_t>>();
}

void attach_trainable_tokens(Builder& builder) {
  const std::string& name = builder.decoder().config().names.embedding;
  builder.choose_targets({name.substr(name.rfind('.') + 1)});
  builder.targeted({name});
  if (!names_module(builder.spec(), name)) {
    builder.refuse("the target is not the embedding", builder.spec().targets[0], name);
  }
  attach_tokens(builder, builder.spec().settings->at("token_indices"), "");
  if (builder.decoder().config().tied_head) {
    builder.copy_as("base_model.model.lm_head.trainable_tokens_delta");
  }
}

}  // namespace

void attach_tokens(Builder& builder, const core::Json& indices, const std::string& infix) {
  const model::DecoderConfig& config = builder.decoder().config();
  const std::string& name = config.names.embedding;
  const std::vector<int64_t> chosen = checked(builder, indices, config.vocab_size);
  const at::Tensor tokens = at::tensor(chosen, at::kLong).to(builder.decoder().device());
  const tensor::ParameterPtr table = builder.decoder().find_parameter(name + ".weight");
  auto rows = builder.add(0,
                          name + infix + ".trainable_tokens_delta",
                          {tokens.numel(), config.hidden_size},
                          Initial::computed([table, tokens](const InitialContext& context) {
                            const at::Tensor whole = context.base(*table);
                            return whole.index_select(0, tokens.to(whole.device())).to(at::kFloat);
                          }));
  builder.decoder().extensions().embedding =
      std::make_shared<TrainedTokens>(rows, tokens, config.vocab_size, builder.switches());
  builder.merge_embedding([rows, tokens](const at::Tensor& weight) {
    return weight.index_copy(0, tokens, wide(rows));
  });
}

Method trainable_tokens_method() {
  return {.name = "trainable_tokens",
          .peft_type = "TRAINABLE_TOKENS",
          .text = "chosen rows of the embedding",
          .settings = {{"token_indices", core::Json::array(), "the tokens, each once"}},
          .targets = {},
          .attach = attach_trainable_tokens};
}

}  // namespace kamerton::tuning
