// SPDX-License-Identifier: Apache-2.0
#include "dropout.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "mix.h"

namespace kamerton::tuning {
namespace {

/// 0 or 1 / (1 - p), of x's shape and dtype; recomputed in backward instead of being stored.
at::Tensor mask(const at::Tensor& like_ND, const at::Tensor& keys_N, double p, uint64_t seed) {
  at::Tensor mask_ND = at::empty(like_ND.sizes(), at::kFloat);
  const int64_t width = like_ND.size(1);
  const auto* keys = keys_N.const_data_ptr<int64_t>();
  auto* out = mask_ND.mutable_data_ptr<float>();
  const auto threshold = static_cast<uint64_t>(p * 18446744073709551616.0);
  const auto keep = static_cast<float>(1.0 / (1.0 - p));
  at::parallel_for(0, like_ND.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const uint64_t row = mix(seed + kMixStride * static_cast<uint64_t>(keys[n]));
      for (int64_t d = 0; d < width; ++d) {
        out[n * width + d] =
            mix(row + kMixStride * static_cast<uint64_t>(d + 1)) < threshold ? 0.0F : keep;
      }
    }
  });
  return mask_ND.to(like_ND.options());
}

struct Dropout : torch::autograd::Function<Dropout> {
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& keys,
                            double p,
                            int64_t seed) {
    context->save_for_backward({keys});
    context->saved_data["p"] = p;
    context->saved_data["seed"] = seed;
    return x * mask(x, keys, p, static_cast<uint64_t>(seed));
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const at::Tensor keys = context->get_saved_variables()[0];
    const at::Tensor grad = grads[0].contiguous();
    return {grad * mask(grad,
                        keys,
                        context->saved_data["p"].toDouble(),
                        static_cast<uint64_t>(context->saved_data["seed"].toInt())),
            {},
            {},
            {}};
  }
};

}  // namespace

at::Tensor dropout(const at::Tensor& x_ND, const at::Tensor& keys_N, double p, uint64_t seed) {
  return Dropout::apply(x_ND, keys_N, p, static_cast<int64_t>(seed));
}

}  // namespace kamerton::tuning
