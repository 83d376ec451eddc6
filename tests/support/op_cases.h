// SPDX-License-Identifier: Apache-2.0
// Every operation of module tensor, forward and backward, on a device of choice: results to compare
// between the CPU kernels, the device's way run on the CPU, and a real device.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "kamerton/core/random.h"
#include "kamerton/tensor/attention.h"
#include "kamerton/tensor/decode.h"
#include "kamerton/tensor/kernels.h"
#include "kamerton/tensor/linear.h"
#include "kamerton/tensor/token_loss.h"

namespace kamerton::test {

using Tensors = std::vector<at::Tensor>;
using Offsets = std::vector<int64_t>;

/// The operations under test: those of the public headers unless a test puts in others.
struct Ops {
  std::function<at::Tensor(const at::Tensor&, const tensor::ParameterPtr&, double, bool)> rms_norm =
      tensor::rms_norm;
  std::function<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const tensor::ParameterPtr&, double, bool)>
      add_rms_norm = tensor::add_rms_norm;
  std::function<at::Tensor(
      const at::Tensor&, const tensor::ParameterPtr&, const tensor::ParameterPtr&, double)>
      layer_norm = tensor::layer_norm;
  std::function<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&,
                                                   const at::Tensor&,
                                                   const tensor::ParameterPtr&,
                                                   const tensor::ParameterPtr&,
                                                   double)>
      add_layer_norm = tensor::add_layer_norm;
  std::function<at::Tensor(tensor::Activation, const at::Tensor&, const at::Tensor&)> gated =
      [](tensor::Activation f, const at::Tensor& gate, const at::Tensor& up) {
        return tensor::gated(f, gate, up);
      };
  std::function<at::Tensor(tensor::Activation, const at::Tensor&)> activate = tensor::activate;
  std::function<at::Tensor(const at::Tensor&,
                           const at::Tensor&,
                           const at::Tensor&,
                           const tensor::Rotary&,
                           const tensor::AttentionShape&,
                           const Offsets&)>
      attend = [](const at::Tensor& q,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const tensor::Rotary& rotary,
                  const tensor::AttentionShape& shape,
                  const Offsets& offsets) {
        return tensor::attend(q, k, v, rotary, shape, std::make_shared<const Offsets>(offsets));
      };
  std::function<at::Tensor(
      const at::Tensor&, const std::vector<tensor::CachedRow>&, const tensor::AttentionShape&)>
      attend_cached = tensor::attend_cached;
};

/// Inputs on a device, made from the same numbers everywhere, and their gradients afterwards.
class Inputs {
 public:
  explicit Inputs(at::TensorOptions options) : options_(options) {}

  at::Tensor plain(std::vector<int64_t> shape, double scale = 1.0) {
    const core::RandomStream stream(++seed_, "op case");
    at::Tensor t = at::empty(shape, at::kFloat);
    for (int64_t i = 0; i < t.numel(); ++i) {
      t.mutable_data_ptr<float>()[i] =
          static_cast<float>(scale * stream.normal(static_cast<uint64_t>(i)));
    }
    return t.to(options_);
  }
  at::Tensor leaf(std::vector<int64_t> shape, double scale = 1.0) {
    at::Tensor t = plain(std::move(shape), scale).requires_grad_(true);
    leaves_.push_back(t);
    return t;
  }
  tensor::ParameterPtr parameter(std::vector<int64_t> shape, double scale = 1.0) {
    auto p = std::make_shared<tensor::Parameter>();
    p->name = "p";
    p->shape = shape;
    p->value = plain(shape, scale).requires_grad_(true);
    parameters_.push_back(p);
    return p;
  }
  at::Tensor ids(std::vector<int64_t> values) const {
    return at::tensor(values, at::kLong).to(options_.device());
  }

  /// Outputs, then all gradients, after a backward from each output with a fixed gradient.
  Tensors results(const Tensors& outputs) {
    Tensors seeds;
    for (const at::Tensor& output : outputs) {
      seeds.push_back(plain(output.sizes().vec()).to(output.scalar_type()));
    }
    torch::autograd::backward(outputs, seeds);
    return with_gradients(outputs);
  }
  Tensors with_gradients(const Tensors& outputs) {
    Tensors all;
    const auto add = [&all](const at::Tensor& t) {
      all.push_back(t.detach().to(at::kCPU, at::kDouble));
    };
    for (const at::Tensor& output : outputs) {
      add(output);
    }
    for (const at::Tensor& leaf : leaves_) {
      add(leaf.grad());
    }
    for (const tensor::ParameterPtr& p : parameters_) {
      EXPECT_EQ(p->accumulator().scalar_type(), at::kFloat);
      add(p->accumulator());
    }
    return all;
  }

 private:
  at::TensorOptions options_;
  uint64_t seed_ = 0;
  Tensors leaves_;
  std::vector<tensor::ParameterPtr> parameters_;
};

struct OpCase {
  std::string name;
  std::function<Tensors(const Ops&, Inputs&)> run;
};

inline tensor::Rotary rotary_for(Inputs& in, int64_t rows, int64_t half) {
  const at::Tensor angles = in.plain({rows, half}).to(at::kFloat);
  return {angles.cos(), angles.sin()};
}

inline OpCase attend_case(const std::string& name,
                          const tensor::AttentionShape& shape,
                          const Offsets& offsets) {
  return {"attend " + name, [shape, offsets](const Ops& ops, Inputs& in) {
            const int64_t rows = offsets.back();
            // q and k are consumed: they must not be leaves themselves.
            const at::Tensor q = in.leaf({rows, shape.heads * shape.head_dim});
            const at::Tensor k = in.leaf({rows, shape.kv_heads * shape.head_dim});
            const at::Tensor v = in.leaf({rows, shape.kv_heads * shape.head_dim});
            const tensor::Rotary rotary = rotary_for(in, rows, shape.head_dim / 2);
            return in.results({ops.attend(q * 1.0, k * 1.0, v, rotary, shape, offsets)});
          }};
}

inline OpCase loss_case(const std::string& name, tensor::TokenLossOptions options, bool log_probs) {
  return {(log_probs ? "token_log_probs " : "token_loss ") + name,
          [options, log_probs](const Ops&, Inputs& in) {
            const at::Tensor hidden = in.leaf({45, 24});
            const tensor::ParameterPtr head = in.parameter({130, 24}, 0.3);
            at::Tensor targets = at::arange(45).mul(37).remainder(130);
            targets.slice(0, 0, 45, 4).fill_(tensor::kIgnoredTarget);
            if (log_probs) {
              return in.results({tensor::token_log_probs(hidden, head, targets, options)});
            }
            const tensor::TokenLoss result = tensor::token_loss(hidden, head, targets, options);
            result.loss.backward();
            return in.with_gradients({result.loss,
                                      at::full({}, result.nll_sum, at::kDouble),
                                      at::full({}, result.targets, at::kDouble)});
          }};
}

inline std::vector<OpCase> norm_cases() {
  std::vector<OpCase> cases;
  for (const bool plus_one : {false, true}) {
    const std::string name = plus_one ? " plus one" : "";
    cases.push_back(
        {"rms_norm" + name, [plus_one](const Ops& ops, Inputs& in) {
           return in.results({ops.rms_norm(in.leaf({37, 48}), in.parameter({48}), 1e-5, plus_one)});
         }});
    cases.push_back({"add_rms_norm" + name, [plus_one](const Ops& ops, Inputs& in) {
                       const at::Tensor x = in.leaf({37, 48});
                       const at::Tensor delta = in.leaf({37, 48});
                       const auto [sum, y] =
                           ops.add_rms_norm(x, delta, in.parameter({48}), 1e-5, plus_one);
                       return in.results({sum, y});
                     }});
  }
  return cases;
}

inline std::vector<OpCase> layer_norm_cases() {
  return {{"layer_norm",
           [](const Ops& ops, Inputs& in) {
             const at::Tensor x = in.leaf({37, 48});
             const tensor::ParameterPtr weight = in.parameter({48});
             return in.results({ops.layer_norm(x, weight, in.parameter({48}), 1e-5)});
           }},
          {"add_layer_norm without bias", [](const Ops& ops, Inputs& in) {
             const at::Tensor x = in.leaf({37, 48});
             const at::Tensor delta = in.leaf({37, 48});
             const auto [sum, y] = ops.add_layer_norm(x, delta, in.parameter({48}), nullptr, 1e-5);
             return in.results({sum, y});
           }}};
}

inline std::vector<OpCase> activation_cases() {
  using tensor::Activation;
  std::vector<OpCase> cases;
  for (const auto& [name, f] : {std::pair("silu", Activation::Silu),
                                std::pair("gelu tanh", Activation::GeluTanh),
                                std::pair("gelu", Activation::Gelu)}) {
    cases.push_back({std::string("gated ") + name, [f = f](const Ops& ops, Inputs& in) {
                       const at::Tensor gate = in.leaf({33, 40});
                       return in.results({ops.gated(f, gate, in.leaf({33, 40}))});
                     }});
    cases.push_back({std::string("activate ") + name, [f = f](const Ops& ops, Inputs& in) {
                       return in.results({ops.activate(f, in.leaf({33, 40}))});
                     }});
  }
  return cases;
}

inline std::vector<OpCase> product_cases() {
  return {{"linear",
           [](const Ops&, Inputs& in) {
             const at::Tensor x = in.leaf({33, 40});
             const tensor::ParameterPtr weight = in.parameter({24, 40}, 0.2);
             return in.results({tensor::linear(x, weight, in.parameter({24}))});
           }},
          {"linear transposed",
           [](const Ops&, Inputs& in) {
             const at::Tensor x = in.leaf({33, 40});
             const tensor::ParameterPtr weight = in.parameter({40, 24}, 0.2);
             return in.results({tensor::linear(x, weight, in.parameter({24}), true)});
           }},
          {"embedding",
           [](const Ops&, Inputs& in) {
             const at::Tensor ids = in.ids({3, 1, 3, 3, 9, 0, 1, 3});
             return in.results({tensor::embedding(ids, in.parameter({10, 48}))});
           }},
          {"rotate",
           [](const Ops&, Inputs& in) {
             at::Tensor x = in.plain({12, 4 * 16});
             tensor::rotate(x, rotary_for(in, 12, 6), 16);  // 12 of 16 dimensions
             return in.with_gradients({x});
           }},
          {"attend_cached", [](const Ops& ops, Inputs& in) {
             const tensor::AttentionShape shape{4, 2, 16, 0.25, 0, 2.0};
             const std::vector<at::Tensor> first = {in.plain({2, 8, 32}), in.plain({2, 8, 32})};
             const std::vector<at::Tensor> second = {in.plain({2, 8, 32})};
             const at::Tensor q = in.plain({2, 64});
             return in.with_gradients({ops.attend_cached(q, {{&first, 11}, {&second, 5}}, shape)});
           }}};
}

inline std::vector<OpCase> op_cases() {
  std::vector<OpCase> cases = norm_cases();
  for (const auto& group : {layer_norm_cases(), activation_cases(), product_cases()}) {
    cases.insert(cases.end(), group.begin(), group.end());
  }
  const Offsets mixed = {0, 12, 24, 24, 31, 60};
  cases.push_back(attend_case("documents", {4, 4, 16, 0.25, 0}, mixed));
  cases.push_back(attend_case("shared keys", {4, 2, 16, 0.25, 0}, mixed));
  cases.push_back(attend_case("window", {4, 2, 16, 0.25, 5}, mixed));
  cases.push_back(attend_case("capped", {4, 2, 16, 0.25, 0, 1.5}, mixed));
  cases.push_back(attend_case("capped window", {4, 2, 16, 0.25, 5, 1.5}, mixed));
  cases.push_back(attend_case("one document", {4, 1, 16, 0.25, 0}, {0, 64}));
  tensor::TokenLossOptions plain;
  plain.scale = 0.125;
  tensor::TokenLossOptions chunked = plain;
  chunked.chunk_rows = 7;
  chunked.count_correct = true;
  tensor::TokenLossOptions capped = chunked;
  capped.soft_cap = 3.0;
  capped.logit_scale = 0.5;
  for (const bool log_probs : {false, true}) {
    cases.push_back(loss_case("plain", plain, log_probs));
    cases.push_back(loss_case("chunked", chunked, log_probs));
    cases.push_back(loss_case("capped", capped, log_probs));
  }
  return cases;
}

/// |a - b| <= tolerance * max(1, largest |b|), for each of the results.
inline void expect_close(const std::string& name,
                         const Tensors& got,
                         const Tensors& expected,
                         double tolerance) {
  ASSERT_EQ(got.size(), expected.size()) << name;
  for (size_t i = 0; i < got.size(); ++i) {
    const double scale = std::max(1.0, expected[i].abs().max().item<double>());
    const double difference = (got[i] - expected[i]).abs().max().item<double>();
    EXPECT_LE(difference, tolerance * scale) << name << ", result " << i;
  }
}

}  // namespace kamerton::test
