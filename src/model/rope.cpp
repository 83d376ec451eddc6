// SPDX-License-Identifier: Apache-2.0
#include "rope.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kamerton::model {
namespace {

constexpr std::string_view kKnownTypes = "default, linear, dynamic, llama3, yarn";

void read_scaling(const ConfigReader& reader, RopeConfig& rope) {
  rope.type = reader.text({"rope_type", "type"}, "default");
  if (rope.type != "default" && rope.type != "linear" && rope.type != "dynamic" &&
      rope.type != "llama3" && rope.type != "yarn") {
    reader.refuse("rope_type", "rotary scaling not supported", rope.type, std::string(kKnownTypes));
  }
  if (rope.type == "default") {
    return;
  }
  if (reader.find({"factor"}) == nullptr) {
    reader.refuse("factor", "missing", "nothing", "a number >= 1");
  }
  rope.factor = reader.positive({"factor"}, 1.0);
  rope.low_freq_factor = reader.positive({"low_freq_factor"}, 1.0);
  rope.high_freq_factor = reader.positive({"high_freq_factor"}, 4.0);
  rope.original_max_positions =
      reader.size({"original_max_position_embeddings"}, 0, int64_t{1} << 40);
  rope.beta_fast = reader.positive({"beta_fast"}, 32.0);
  rope.beta_slow = reader.positive({"beta_slow"}, 1.0);
  rope.mscale = reader.number({"mscale"}, 0.0);
  rope.mscale_all_dim = reader.number({"mscale_all_dim"}, 0.0);
  rope.truncate = reader.flag("truncate", true);
  if (reader.find({"attention_factor"}) != nullptr) {
    rope.attention_factor = reader.positive({"attention_factor"}, 1.0);
  }
  if (rope.type == "llama3" && rope.high_freq_factor <= rope.low_freq_factor) {
    reader.refuse("high_freq_factor",
                  "must be above low_freq_factor",
                  fmt::format("{} and {}", rope.high_freq_factor, rope.low_freq_factor),
                  "greater");
  }
}

/// llama3: long waves slowed by the factor, short ones kept, a ramp between.
at::Tensor llama3(const at::Tensor& inverse, const RopeConfig& rope, int64_t original) {
  const auto context = static_cast<double>(original);
  const at::Tensor wave = 2 * std::numbers::pi / inverse;
  const at::Tensor slowed =
      at::where(wave > context / rope.low_freq_factor, inverse / rope.factor, inverse);
  const at::Tensor smooth =
      (context / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor blended = (1 - smooth) * slowed / rope.factor + smooth * slowed;
  const at::Tensor between =
      wave.lt(context / rope.high_freq_factor)
          .logical_not()
          .logical_and(wave.gt(context / rope.low_freq_factor).logical_not());
  return at::where(between, blended, slowed);
}

double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

/// YaRN (arXiv 2309.00071): interpolation for slow dimensions, none for fast ones.
at::Tensor yarn(const at::Tensor& inverse,
                const RopeConfig& rope,
                int64_t original,
                int64_t dims,
                double& factor) {
  const auto dim_of = [&](double rotations) {
    return static_cast<double>(dims) *
           std::log(static_cast<double>(original) / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double low = dim_of(rope.beta_fast);
  double high = dim_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dims - 1));
  if (low == high) {
    high += 0.001;
  }
  const at::Tensor ramp = ((at::arange(dims / 2, at::kFloat) - low) / (high - low)).clamp(0.0, 1.0);
  const bool both = rope.mscale != 0 && rope.mscale_all_dim != 0;
  factor = rope.attention_factor.value_or(both ? yarn_scale(rope.factor, rope.mscale) /
                                                     yarn_scale(rope.factor, rope.mscale_all_dim)
                                               : yarn_scale(rope.factor, 1.0));
  return inverse / rope.factor * ramp + inverse * (1 - ramp);
}

}  // namespace

void read_rope(const ConfigReader& reader, DecoderConfig& config) {
  RopeConfig& rope = config.rope;
  const core::Json* current = reader.find({"rope_parameters"});
  const core::Json* older = reader.find({"rope_scaling"});
  for (const core::Json* object : {older, current}) {
    if (object == nullptr) {
      continue;
    }
    const char* name = object == current ? "rope_parameters" : "rope_scaling";
    if (!object->is_object()) {
      reader.refuse(name, "not an object", object->dump(), "an object, or null");
    }
    RopeConfig read;
    const ConfigReader inner(*object, reader.origin(), std::string(name) + ".");
    read_scaling(inner, read);
    if (object == current && older != nullptr && read.type != rope.type) {
      reader.refuse(name, "differs from rope_scaling", read.type, rope.type);
    }
    read.theta = inner.positive({"rope_theta"}, rope.theta);
    read.partial_factor = inner.positive({"partial_rotary_factor"}, 1.0);
    rope = read;
  }
  const auto has_theta = [](const core::Json* object) {
    return object != nullptr && core::json_find(*object, "rope_theta") != nullptr;
  };
  const bool has_inner = has_theta(current) || has_theta(older);
  const double outer = reader.positive({"rope_theta"}, has_inner ? rope.theta : 10000.0);
  if (has_inner && outer != rope.theta) {
    reader.refuse("rope_theta",
                  "differs from rope_parameters.rope_theta",
                  fmt::format("{}", outer),
                  fmt::format("{}", rope.theta));
  }
  rope.theta = outer;
  rope.partial_factor = reader.positive({"partial_rotary_factor"}, rope.partial_factor);
  if (rope.original_max_positions == 0) {
    rope.original_max_positions = config.max_positions;
  }
  if (rotated_dims(config) < (rope.type == "dynamic" ? 4 : 2) ||
      rotated_dims(config) > config.head_dim) {
    reader.refuse("partial_rotary_factor",
                  "no usable share of a head",
                  fmt::format("{}", rope.partial_factor),
                  "above 0, at most 1");
  }
}

int64_t rotated_dims(const DecoderConfig& config) {
  return static_cast<int64_t>(static_cast<double>(config.head_dim) * config.rope.partial_factor) /
         2 * 2;
}

at::Tensor inverse_frequencies(const DecoderConfig& config, int64_t length, double& factor) {
  const RopeConfig& rope = config.rope;
  const int64_t dims = rotated_dims(config);
  factor = 1.0;
  double base = rope.theta;
  if (rope.type == "dynamic") {
    const auto limit = static_cast<double>(config.max_positions);
    const double longest = std::max(static_cast<double>(length), limit);
    base *= std::pow(rope.factor * longest / limit - (rope.factor - 1),
                     static_cast<double>(dims) / static_cast<double>(dims - 2));
  }
  // The same operations in the same precision as the reference: at large positions the last bit
  // shows.
  const at::Tensor exponent =
      at::arange(0, dims, 2, at::kLong).to(at::kFloat) / static_cast<double>(dims);
  const at::Tensor inverse = at::pow(base, exponent).reciprocal();
  if (rope.type == "linear") {
    return inverse / rope.factor;
  }
  if (rope.type == "llama3") {
    return llama3(inverse, rope, rope.original_max_positions);
  }
  if (rope.type == "yarn") {
    return yarn(inverse, rope, rope.original_max_positions, dims, factor);
  }
  return inverse;
}

tensor::Rotary rotary_table(const DecoderConfig& config, const at::Tensor& positions_N) {
  const at::NoGradGuard no_grad;
  const int64_t length = config.rope.type == "dynamic" && positions_N.numel() > 0
                             ? positions_N.max().item<int64_t>() + 1
                             : 0;
  double factor = 1.0;
  const at::Tensor inverse = inverse_frequencies(config, length, factor).to(positions_N.device());
  const at::Tensor angles = positions_N.to(at::kFloat).unsqueeze(1) * inverse.unsqueeze(0);
  tensor::Rotary rotary{angles.cos(), angles.sin()};
  if (factor != 1.0) {
    rotary.cos_NR.mul_(factor);
    rotary.sin_NR.mul_(factor);
  }
  return rotary;
}

}  // namespace kamerton::model
