// SPDX-License-Identifier: Apache-2.0
#include "kamerton/model/decoder.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

#include "small_model.h"
#include "support/oracle.h"

namespace kamerton::model {
namespace {

using test::documents_of;
using test::max_difference;
using test::next_tokens;
using test::small_model;

/// Loss and all gradients of the documents in one forward.
struct Outcome {
  double loss = 0;
  std::vector<at::Tensor> gradients;
};

Outcome train_once(Decoder& decoder, const std::vector<std::vector<int64_t>>& documents) {
  const tensor::TokenLoss loss =
      decoder.loss(decoder.forward(Rows::from_documents(documents)), next_tokens(documents));
  torch::autograd::backward({loss.loss}, {});
  Outcome outcome{loss.loss.item<double>(), {}};
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    outcome.gradients.push_back(parameter->value.grad());
  }
  return outcome;
}

TEST(Decoder, CheckpointedBlocksGiveTheSameBits) {
  const auto documents = documents_of({13, 29, 6});
  ModelOptions checkpointed;
  checkpointed.activation_checkpointing = "block";

  const Outcome plain = train_once(*small_model(), documents);
  const Outcome again = train_once(*small_model(checkpointed), documents);

  EXPECT_EQ(plain.loss, again.loss);
  for (size_t i = 0; i < plain.gradients.size(); ++i) {
    EXPECT_TRUE(at::equal(plain.gradients[i], again.gradients[i])) << i;
  }
}

TEST(Decoder, PackedDocumentsEqualSeparateOnes) {
  const auto documents = documents_of({13, 1, 29, 29, 6});
  const auto packed_model = small_model();
  const auto separate_model = small_model();

  const Outcome packed = train_once(*packed_model, documents);
  double sum = 0;
  for (const auto& document : documents) {
    if (document.size() > 1) {
      sum += train_once(*separate_model, {document}).loss;
    }
  }

  EXPECT_NEAR(packed.loss, sum, 1e-5 * sum);
  const auto parameters = separate_model->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_LT(max_difference(packed.gradients[i], parameters[i]->value.grad()), 2e-4) << i;
  }
}

TEST(Decoder, ChunksOfTheHeadDoNotChangeTheLoss) {
  const auto documents = documents_of({40, 20});
  ModelOptions tiny_chunks;
  tiny_chunks.head_chunk_rows = 7;

  const Outcome whole = train_once(*small_model(), documents);
  const Outcome chunked = train_once(*small_model(tiny_chunks), documents);

  EXPECT_NEAR(whole.loss, chunked.loss, 1e-6 * whole.loss);
  for (size_t i = 0; i < whole.gradients.size(); ++i) {
    EXPECT_LT(max_difference(whole.gradients[i], chunked.gradients[i]), 1e-4) << i;
  }
}

TEST(Decoder, LossEqualsTheSumOfLogProbabilities) {
  const auto documents = documents_of({31});
  const auto decoder = small_model();
  const at::Tensor targets = next_tokens(documents);

  const tensor::TokenLoss loss =
      decoder->loss(decoder->forward(Rows::from_documents(documents)), targets);
  const auto other = small_model();
  const at::Tensor log_p =
      other->log_probs(other->forward(Rows::from_documents(documents)), targets);
  torch::autograd::backward({loss.loss}, {});
  torch::autograd::backward({-log_p.sum()}, {});

  EXPECT_NEAR(loss.loss.item<double>(), -log_p.sum().item<double>(), 1e-3);
  EXPECT_EQ(loss.targets, 30);
  for (size_t i = 0; i < decoder->parameters().size(); ++i) {
    EXPECT_LT(max_difference(decoder->parameters()[i]->value.grad(),
                             other->parameters()[i]->value.grad()),
              1e-4);
  }
}

TEST(Decoder, EmbeddingsMayBeGivenInsteadOfTokens) {
  const at::NoGradGuard no_grad;
  const auto decoder = small_model();
  const Rows rows = Rows::from_documents(documents_of({9, 4}));

  const at::Tensor by_tokens = decoder->forward(rows);
  const at::Tensor by_embeddings = decoder->forward(rows, decoder->embed(rows.tokens_N));

  EXPECT_TRUE(at::equal(by_tokens, by_embeddings));
}

class Recorder final : public tensor::UnitHooks {
 public:
  void before_forward(int unit) override { note("f", unit); }
  void after_forward(int unit) override { note("/f", unit); }
  void before_backward(int unit) override { note("b", unit); }
  void after_backward(int unit) override { note("/b", unit); }
  std::string log;

 private:
  void note(const char* what, int unit) { log += what + std::to_string(unit) + " "; }
};

TEST(Decoder, HooksBracketEveryUseInOneOrder) {
  for (const char* mode : {"none", "block"}) {
    ModelOptions options;
    options.activation_checkpointing = mode;
    const auto decoder = small_model(options);
    Recorder recorder;
    decoder->set_hooks(&recorder);

    train_once(*decoder, documents_of({5, 8}));

    // Embedding, three blocks, the tied head (fused: backward pair only), then backward.
    EXPECT_EQ(recorder.log, "f0 /f0 f1 /f1 f2 /f2 f3 /f3 b0 /b0 b3 /b3 b2 /b2 b1 /b1 b0 /b0 ")
        << mode;
  }
}

TEST(Decoder, FrozenUnitsBelowTheFirstTrainableOneHaveNoBackward) {
  const auto decoder = small_model();
  for (const tensor::ParameterPtr& parameter : decoder->parameters()) {
    parameter->trainable = parameter->name.find("layers.2.mlp") != std::string::npos;
    parameter->value.requires_grad_(parameter->trainable);
  }
  Recorder recorder;
  decoder->set_hooks(&recorder);

  const Outcome outcome = train_once(*decoder, documents_of({5, 8}));

  EXPECT_EQ(recorder.log, "f0 /f0 f1 /f1 f2 /f2 f3 /f3 b0 /b0 b3 /b3 ");
  for (size_t i = 0; i < outcome.gradients.size(); ++i) {
    EXPECT_EQ(outcome.gradients[i].defined(), decoder->parameters()[i]->trainable);
  }
}

TEST(Decoder, BfloatFollowsFloatClosely) {
  const auto documents = documents_of({33, 20});
  ModelOptions bf16;
  bf16.dtype = "bf16";

  const Outcome wide = train_once(*small_model(), documents);
  const Outcome narrow = train_once(*small_model(bf16), documents);

  EXPECT_NEAR(wide.loss, narrow.loss, 0.02 * wide.loss);
  for (size_t i = 0; i < wide.gradients.size(); ++i) {
    EXPECT_EQ(narrow.gradients[i].scalar_type(), at::kFloat);
    const double scale = wide.gradients[i].norm().item<double>();
    const at::Tensor difference = narrow.gradients[i] - wide.gradients[i];
    EXPECT_LT(difference.norm().item<double>(), 0.1 * scale) << i;
  }
}

}  // namespace
}  // namespace kamerton::model
