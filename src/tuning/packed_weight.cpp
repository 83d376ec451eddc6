// SPDX-License-Identifier: Apache-2.0
#include "packed_weight.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

namespace kamerton::tuning {
namespace {

constexpr int64_t kWideElements = 1 << 20;  // made wide at once: 4 MiB

/// bitsandbytes' create_normal_map: quantiles of the normal distribution, 0 among them.
constexpr float kNf4[16] = {-1.0F,
                            -0.6961928009986877F,
                            -0.5250730514526367F,
                            -0.39491748809814453F,
                            -0.28444138169288635F,
                            -0.18477343022823334F,
                            -0.09105003625154495F,
                            0.0F,
                            0.07958029955625534F,
                            0.16093020141124725F,
                            0.24611230194568634F,
                            0.33791524171829224F,
                            0.44070982933044434F,
                            0.5626170039176941F,
                            0.7229568362236023F,
                            1.0F};

/// bitsandbytes' create_dynamic_map(signed): fractions of 1 to 64 steps a power of ten.
at::Tensor make_dynamic_map() {
  std::vector<float> values = {0.0F, 1.0F};
  for (int i = 0; i < 7; ++i) {
    const int64_t steps = (int64_t{1} << i) + 1;
    const at::Tensor bounds = at::linspace(0.1, 1.0, steps, at::kFloat);
    const at::Tensor means =
        (bounds.narrow(0, 0, steps - 1) + bounds.narrow(0, 1, steps - 1)) / 2.0;
    const auto power = static_cast<float>(std::pow(10.0, i - 6));
    for (int64_t k = 0; k + 1 < steps; ++k) {
      const float value = power * means[k].item<float>();
      values.push_back(value);
      values.push_back(-value);
    }
  }
  std::sort(values.begin(), values.end());
  return at::tensor(values, at::kFloat);
}

int64_t ceil_of(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

/// The index of the value of an ascending table that is nearest.
at::Tensor nearest_in(const at::Tensor& table, const at::Tensor& x) {
  const at::Tensor middle =
      (table.narrow(0, 0, table.numel() - 1) + table.narrow(0, 1, table.numel() - 1)) / 2.0;
  return at::bucketize(x.contiguous(), middle).to(at::kByte);
}

at::Tensor block_maxima(const at::Tensor& flat, int64_t block) {
  const int64_t blocks = ceil_of(flat.numel(), block);
  return at::constant_pad_nd(flat, {0, blocks * block - flat.numel()})
      .view({blocks, block})
      .abs()
      .amax(1)
      .clamp_min(1e-38);
}

at::Tensor in_blocks(const at::Tensor& flat, const at::Tensor& scales, int64_t block) {
  const int64_t padded = scales.numel() * block;
  return (at::constant_pad_nd(flat, {0, padded - flat.numel()}).view({-1, block}) *
          (1.0 / scales).unsqueeze(1))
      .clamp(-1, 1)
      .view({-1})
      .narrow(0, 0, flat.numel());
}

struct PackedProduct : torch::autograd::Function<PackedProduct> {
  struct Holder : torch::CustomClassHolder {
    explicit Holder(std::shared_ptr<const PackedRows> w) : weight(std::move(w)) {}
    std::shared_ptr<const PackedRows> weight;
  };

  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& x,
                            std::shared_ptr<const PackedRows> weight) {
    at::Tensor out = at::empty({x.size(0), weight->out()}, x.options().requires_grad(false));
    for (int64_t first = 0; first < weight->out(); first += weight->rows_at_once()) {
      const int64_t count = std::min(weight->rows_at_once(), weight->out() - first);
      const at::Tensor rows = weight->rows(first, count).to(x.scalar_type());
      out.narrow(1, first, count).copy_(at::mm(x.detach(), rows.t()));
    }
    context->saved_data["weight"] =
        c10::IValue::make_capsule(c10::make_intrusive<Holder>(std::move(weight)));
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto capsule = context->saved_data["weight"].toCapsule();
    const PackedRows& weight = *static_cast<Holder&>(*capsule).weight;
    const at::Tensor& dy = grads[0];
    at::Tensor dx;
    for (int64_t first = 0; first < weight.out(); first += weight.rows_at_once()) {
      const int64_t count = std::min(weight.rows_at_once(), weight.out() - first);
      const at::Tensor rows = weight.rows(first, count).to(dy.scalar_type());
      const at::Tensor part = dy.narrow(1, first, count);
      dx = dx.defined() ? dx.addmm_(part, rows) : at::mm(part, rows);
    }
    return {dx, {}};
  }
};

}  // namespace

PackedRows::PackedRows(std::string name, int64_t out, int64_t in, int64_t bytes)
    : out_(out), in_(in), parameter_(std::make_shared<tensor::Parameter>()) {
  parameter_->name = std::move(name);
  parameter_->shape = {bytes};
  parameter_->trainable = false;
  parameter_->packed = true;
}

int64_t PackedRows::rows_at_once() const {
  return std::clamp<int64_t>(kWideElements / in_, 1, out_);
}

at::Tensor PackedRows::product(const at::Tensor& x_NI) const {
  return PackedProduct::apply(x_NI, shared_from_this());
}

const float* Nf4Weight::code_book() {
  return kNf4;
}

const at::Tensor& Nf4Weight::dynamic_map() {
  static const at::Tensor map = make_dynamic_map();
  return map;
}

/// n / 2 + n / 64 + 4 n / (64 * 256), each rounded up, and the mean.
Nf4Weight::Nf4Weight(std::string name, int64_t out, int64_t in)
    : PackedRows(std::move(name),
                 out,
                 in,
                 (out * in + 1) / 2 + ceil_of(out * in, kBlock) +
                     4 * ceil_of(ceil_of(out * in, kBlock), kScaleBlock) + 4),
      blocks_(ceil_of(out * in, kBlock)),
      scale_blocks_(ceil_of(blocks_, kScaleBlock)) {}

at::Tensor Nf4Weight::packed(const at::Tensor& weight_OI) const {
  const at::NoGradGuard no_grad;
  const at::Tensor flat = weight_OI.to(at::kCPU, at::kFloat).contiguous().view({-1});
  const at::Tensor scales = block_maxima(flat, kBlock);
  static const at::Tensor book = at::tensor(at::ArrayRef<float>(kNf4, 16), at::kFloat);
  at::Tensor index = nearest_in(book, in_blocks(flat, scales, kBlock));
  index = at::constant_pad_nd(index, {0, index.numel() % 2});
  const at::Tensor codes =
      index.slice(0, 0, at::nullopt, 2).mul(16).add(index.slice(0, 1, at::nullopt, 2));
  const at::Tensor mean = scales.mean().view({1});
  const at::Tensor rest = scales - mean;
  const at::Tensor sizes = block_maxima(rest, kScaleBlock);
  const at::Tensor small = nearest_in(dynamic_map(), in_blocks(rest, sizes, kScaleBlock));
  return at::cat({sizes.view(at::kByte), mean.view(at::kByte), small, codes});
}

at::Tensor Nf4Weight::scales() const {
  return parameter_->value.narrow(0, 4 * (scale_blocks_ + 1), blocks_);
}
at::Tensor Nf4Weight::codes() const {
  const int64_t begin = 4 * (scale_blocks_ + 1) + blocks_;
  return parameter_->value.narrow(0, begin, bytes() - begin);
}

/// Scales of blocks [first, first + count), fp32.
at::Tensor Nf4Weight::wide_scales(int64_t first, int64_t count) const {
  at::Tensor wide = at::empty({count}, at::kFloat);
  auto* out = wide.mutable_data_ptr<float>();
  const at::Tensor small = scales();
  const at::Tensor wide_part = parameter_->value.narrow(0, 0, 4 * (scale_blocks_ + 1));
  const auto* code = small.const_data_ptr<uint8_t>();
  const auto* size = reinterpret_cast<const float*>(wide_part.const_data_ptr<uint8_t>());
  const float mean = size[scale_blocks_];
  const auto* map = dynamic_map().const_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    out[i] = map[code[first + i]] * size[(first + i) / kScaleBlock] + mean;
  }
  return wide;
}

at::Tensor Nf4Weight::rows(int64_t first, int64_t count) const {
  at::Tensor wide = at::empty({count, in_}, at::kFloat);
  const int64_t begin = first * in_;
  const int64_t first_block = begin / kBlock;
  const at::Tensor scales =
      wide_scales(first_block, (begin + count * in_ - 1) / kBlock - first_block + 1);
  const at::Tensor stored = codes();
  const auto* scale = scales.const_data_ptr<float>();
  const auto* code = stored.const_data_ptr<uint8_t>();
  auto* out = wide.mutable_data_ptr<float>();
  at::parallel_for(0, count * in_, 1 << 15, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t at = begin + i;
      const int nibble = (at & 1) == 0 ? code[at >> 1] >> 4 : code[at >> 1] & 15;
      out[i] = kNf4[nibble] * scale[at / kBlock - first_block];
    }
  });
  return wide;
}

at::Tensor Int8Weight::packed(const at::Tensor& weight_OI) const {
  const at::NoGradGuard no_grad;
  const at::Tensor weight = weight_OI.to(at::kCPU, at::kFloat).contiguous();
  const at::Tensor sizes = weight.abs().amax(1);
  const at::Tensor codes =
      (weight * (127.0 / sizes.clamp_min(1e-38)).unsqueeze(1)).round().to(at::kChar);
  return at::cat({sizes.view(at::kByte), codes.view({-1}).view(at::kByte)});
}

at::Tensor Int8Weight::rows(int64_t first, int64_t count) const {
  const at::Tensor codes =
      parameter_->value.narrow(0, 4 * out_ + first * in_, count * in_).view(at::kChar);
  const at::Tensor sizes = parameter_->value.narrow(0, 4 * first, 4 * count).view(at::kFloat);
  return codes.view({count, in_}).to(at::kFloat) * (sizes / 127.0).unsqueeze(1);
}

}  // namespace kamerton::tuning
