// SPDX-License-Identifier: Apache-2.0
// FourierFT (arXiv 2405.03003): delta = scaling * real part of the inverse 2-D transform of a
// matrix that is zero but at n_frequency places. The places are torch's, by the seed in the
// configuration.
#include <ATen/ATen.h>

#include "../method.h"
#include "../torch_random.h"

namespace kamerton::tuning {
namespace {

class FourierChange final : public WeightChange {
 public:
  FourierChange(tensor::ParameterPtr spectrum, at::Tensor places, double scaling)
      : spectrum_(std::move(spectrum)), places_(std::move(places)), scaling_(scaling) {}

 protected:
  at::Tensor delta(const at::Tensor& weight) const override {
    const at::Tensor values = wide(spectrum_);
    const at::Tensor dense =
        at::zeros({weight.size(0) * weight.size(1)}, values.options().requires_grad(false))
            .index_copy(0, places_.to(values.device()), values)
            .view({weight.size(0), weight.size(1)});
    return at::real(at::fft_ifft2(dense)) * scaling_;
  }

 private:
  tensor::ParameterPtr spectrum_;  // [n_frequency]
  at::Tensor places_;              // in the flattened [O, I]
  double scaling_;
};

void attach_fourierft(Builder& builder) {
  for (model::Linear* linear : builder.targeted()) {
    const auto n = static_cast<int64_t>(builder.by_pattern(
        "n_frequency_pattern", linear->name, static_cast<double>(builder.count("n_frequency"))));
    const int64_t size = linear->in_features * linear->out_features;
    if (n > size) {
      builder.refuse("more frequencies than " + linear->name + " has elements",
                     std::to_string(n),
                     "at most " + std::to_string(size));
    }
    TorchRandom random(static_cast<uint64_t>(builder.count("random_loc_seed")));
    const at::Tensor places = random.permutation(size, n);
    auto spectrum =
        builder.add(linear->unit,
                    linear->name + ".fourierft_spectrum",
                    {n},
                    builder.flag("init_weights") ? Initial::constant(0) : Initial::normal(1));
    builder.change(*linear,
                   std::make_unique<FourierChange>(spectrum, places, builder.number("scaling")));
  }
}

}  // namespace

Method fourierft_method() {
  return {
      .name = "fourierft",
      .peft_type = "FOURIERFT",
      .text = "a few coefficients of the update's spectrum (arXiv 2405.03003)",
      .settings = {{"n_frequency", 1000, "trained coefficients of a module"},
                   {"scaling", 150.0, "multiplies the update"},
                   {"random_loc_seed", 777, "seed of their places (torch's generator)"},
                   {"init_weights", false, "start at zero; false: normal, a change at once"},
                   {"n_frequency_pattern", core::Json::object(), "module expression -> number"}},
      .targets = {"all-linear"},
      .attach = attach_fourierft};
}

}  // namespace kamerton::tuning
