// SPDX-License-Identifier: Apache-2.0
// A whole model without our CPU kernels: they take fp32 and bf16, so in double precision every
// operation goes the way of devices. Loss and all gradients against the kernels'.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/model/decoder.h"
#include "kamerton/model/weights.h"

namespace kamerton::model {
namespace {

constexpr const char* kConfig =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96,
"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
"num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
"tie_word_embeddings": true})";

struct Result {
  double loss = 0;
  std::vector<at::Tensor> gradients;
};

Result loss_and_gradients(at::ScalarType dtype, bool checkpointing) {
  ModelOptions options;
  options.random_init = true;
  options.dtype = "fp32";
  options.device = "cpu";
  options.activation_checkpointing = checkpointing ? "block" : "none";
  Decoder decoder(parse_config(kConfig, "test"), options);
  tensor::place_whole(decoder.units(), dtype);
  const auto weights = open_weights(options, decoder);
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    weights->read(*parameter, 0, parameter->value.detach().view({-1}));
  }
  const Rows rows = Rows::from_documents({{1, 2, 3, 4, 5, 6, 7}, {9, 8, 7}, {40, 50, 60}});
  tensor::TokenLossOptions loss_options;
  loss_options.scale = 1.0 / 13;
  const tensor::TokenLoss loss =
      decoder.loss(decoder.forward(rows), at::roll(rows.tokens_N, -1), loss_options);
  torch::autograd::backward({loss.loss}, {});
  Result result{loss.loss.item<double>(), {}};
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    result.gradients.push_back(parameter->accumulator().to(at::kDouble));
  }
  return result;
}

TEST(DevicesWay, AWholeModelHasTheKernelsLossAndGradients) {
  const Result kernels = loss_and_gradients(at::kFloat, false);
  for (const bool checkpointing : {false, true}) {
    const Result device = loss_and_gradients(at::kDouble, checkpointing);
    EXPECT_NEAR(device.loss, kernels.loss, 1e-6 * kernels.loss);
    ASSERT_EQ(device.gradients.size(), kernels.gradients.size());
    for (size_t i = 0; i < device.gradients.size(); ++i) {
      const double largest = kernels.gradients[i].abs().max().item<double>();
      EXPECT_GT(largest, 0.0);
      EXPECT_LE((device.gradients[i] - kernels.gradients[i]).abs().max().item<double>(),
                1e-4 * largest)
          << i;
    }
  }
}

}  // namespace
}  // namespace kamerton::model
