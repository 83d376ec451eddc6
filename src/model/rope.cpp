// SPDX-License-Identifier: Apache-2.0
#include "rope.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace kamerton::model {
namespace {

constexpr std::string_view kKnownTypes = "default, linear, dynamic, llama3, yarn, longrope";

std::string read_type(const ConfigReader& reader) {
  std::string type = reader.text({"rope_type", "type"}, "default");
  // Older Phi-3 files.
  if (type == "su" || (type == "yarn" && reader.find({"short_factor"}) != nullptr)) {
    type = "longrope";
  }
  for (const std::string_view known :
       {"default", "linear", "dynamic", "llama3", "yarn", "longrope"}) {
    if (type == known) {
      return type;
    }
  }
  reader.refuse("rope_type", "rotary scaling not supported", type, std::string(kKnownTypes));
}

void read_longrope(const ConfigReader& reader, RopeConfig& rope) {
  rope.short_factors = reader.positives("short_factor");
  rope.long_factors = reader.positives("long_factor");
  rope.factor = reader.positive({"factor"}, 1.0);
}

void read_scaling(const ConfigReader& reader, RopeConfig& rope) {
  rope.type = read_type(reader);
  if (rope.type == "default") {
    return;
  }
  rope.original_max_positions = reader.size(
      {"original_max_position_embeddings"}, rope.original_max_positions, int64_t{1} << 40);
  if (reader.find({"attention_factor"}) != nullptr) {
    rope.attention_factor = reader.positive({"attention_factor"}, 1.0);
  }
  if (rope.type == "longrope") {
    read_longrope(reader, rope);
    return;
  }
  if (reader.find({"factor"}) == nullptr) {
    reader.refuse("factor", "missing", "nothing", "a number >= 1");
  }
  rope.factor = reader.positive({"factor"}, 1.0);
  rope.low_freq_factor = reader.positive({"low_freq_factor"}, 1.0);
  rope.high_freq_factor = reader.positive({"high_freq_factor"}, 4.0);
  rope.beta_fast = reader.positive({"beta_fast"}, 32.0);
  rope.beta_slow = reader.positive({"beta_slow"}, 1.0);
  rope.mscale = reader.number({"mscale"}, 0.0);
  rope.mscale_all_dim = reader.number({"mscale_all_dim"}, 0.0);
  rope.truncate = reader.flag("truncate", true);
  if (rope.type == "llama3" && rope.high_freq_factor <= rope.low_freq_factor) {
    reader.refuse("high_freq_factor",
                  "must be above low_freq_factor",
                  fmt::format("{} and {}", rope.high_freq_factor, rope.low_freq_factor),
                  "greater");
  }
}

/// The value of one setting that may be written inside of an object or outside of it (`spellings`);
/// both must agree.
double inside_or_outside(const ConfigReader& reader,
                         std::initializer_list<std::string_view> spellings,
                         const std::optional<double>& inside,
                         double fallback) {
  const double outside = reader.positive(spellings, inside.value_or(fallback));
  if (inside && outside != *inside) {
    reader.refuse(*spellings.begin(),
                  "differs from the value in rope_parameters",
                  fmt::format("{}", outside),
                  fmt::format("{}", *inside));
  }
  return outside;
}

/// One description of a rotation, from up to two objects (null: absent) and the keys beside them.
class RopeReader {
 public:
  RopeReader(const ConfigReader& reader, const RopeConfig& defaults)
      : reader_(reader), defaults_(defaults), rope_(defaults) {}

  void add(const core::Json* object, const std::string& name) {
    if (object == nullptr) {
      return;
    }
    if (!object->is_object()) {
      reader_.refuse(name, "not an object", object->dump(), "an object, or null");
    }
    RopeConfig read = defaults_;
    const ConfigReader inner(*object, reader_.origin(), name + ".");
    read_scaling(inner, read);
    if (seen_ && (read.type != rope_.type || read.factor != rope_.factor)) {
      reader_.refuse(name,
                     "differs from rope_scaling",
                     fmt::format("{} by {}", read.type, read.factor),
                     fmt::format("{} by {}", rope_.type, rope_.factor));
    }
    keep(inner, "rope_theta", theta_);
    keep(inner, "partial_rotary_factor", partial_);
    rope_ = read;
    seen_ = true;
  }

  RopeConfig finish(std::initializer_list<std::string_view> theta_keys,
                    std::initializer_list<std::string_view> partial_keys) {
    rope_.theta = inside_or_outside(reader_, theta_keys, theta_, defaults_.theta);
    rope_.partial_factor =
        inside_or_outside(reader_, partial_keys, partial_, defaults_.partial_factor);
    return rope_;
  }

 private:
  static void keep(const ConfigReader& inner, std::string_view key, std::optional<double>& into) {
    if (inner.find({key}) != nullptr) {
      into = inner.positive({key}, 1.0);
    }
  }

  const ConfigReader& reader_;
  RopeConfig defaults_;
  RopeConfig rope_;
  std::optional<double> theta_, partial_;
  bool seen_ = false;
};

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

/// LongRoPE (arXiv 2402.13753) as in Phi-3.
at::Tensor longrope(const at::Tensor& powers,
                    const DecoderConfig& config,
                    const RopeConfig& rope,
                    int64_t length,
                    double& factor) {
  const auto original = static_cast<double>(rope.original_max_positions);
  const double stretch =
      rope.factor != 1.0 ? rope.factor : static_cast<double>(config.max_positions) / original;
  factor = rope.attention_factor.value_or(
      stretch <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(original)));
  const bool is_long = length > rope.original_max_positions;
  const std::vector<double>& factors = is_long ? rope.long_factors : rope.short_factors;
  return (at::tensor(factors, at::kDouble).to(at::kFloat) * powers).reciprocal();
}

void check_rope(const ConfigReader& reader, const DecoderConfig& config, RopeConfig& rope) {
  if (rope.original_max_positions == 0) {
    rope.original_max_positions = config.max_positions;
  }
  const int64_t dims = rotated_dims(config, rope);
  if (dims < (rope.type == "dynamic" ? 4 : 2) || dims > config.head_dim || dims % 2 != 0) {
    reader.refuse("partial_rotary_factor",
                  "no usable share of a head",
                  fmt::format("{} of {} dimensions", rope.partial_factor, config.head_dim),
                  "above 0, at most 1, an even number of dimensions");
  }
  for (const auto& [name, factors] : {std::pair("short_factor", &rope.short_factors),
                                      std::pair("long_factor", &rope.long_factors)}) {
    if (rope.type == "longrope" && static_cast<int64_t>(factors->size()) != dims / 2) {
      reader.refuse(name,
                    "one factor a rotated pair is needed",
                    std::to_string(factors->size()),
                    std::to_string(dims / 2));
    }
  }
}

/// The object `key` of rope_parameters; null when rope_parameters is not nested.
const core::Json* nested(const core::Json* parameters, std::string_view key) {
  return parameters == nullptr || !parameters->is_object() ? nullptr
                                                           : core::json_find(*parameters, key);
}

void read_local_rope(const ConfigReader& reader, const core::Json* object, DecoderConfig& config) {
  RopeReader local(reader, *config.local_rope);
  local.add(object, "rope_parameters.sliding_attention");
  config.local_rope = local.finish({"rope_local_base_freq"}, {"partial_rotary_factor"});
  check_rope(reader, config, *config.local_rope);
}

}  // namespace

void read_rope(const ConfigReader& reader, DecoderConfig& config) {
  if (!config.rotary) {
    return;
  }
  const core::Json* current = reader.find({"rope_parameters"});
  std::string name = "rope_parameters";
  if (config.local_rope) {
    read_local_rope(reader, nested(current, "sliding_attention"), config);
    if (const core::Json* full = nested(current, "full_attention"); full != nullptr) {
      current = full;
      name += ".full_attention";
    }
  }
  config.rope.original_max_positions = reader.size(
      {"original_max_position_embeddings"}, config.rope.original_max_positions, int64_t{1} << 40);
  RopeReader rope(reader, config.rope);
  rope.add(reader.find({"rope_scaling"}), "rope_scaling");
  rope.add(current, name);
  config.rope =
      rope.finish({"rope_theta", "rotary_emb_base"}, {"partial_rotary_factor", "rotary_pct"});
  check_rope(reader, config, config.rope);
}

int64_t rotated_dims(const DecoderConfig& config, const RopeConfig& rope) {
  return static_cast<int64_t>(static_cast<double>(config.head_dim) * rope.partial_factor);
}

int64_t length_of_change(const DecoderConfig& config) {
  return config.rotary && config.rope.type == "longrope" ? config.rope.original_max_positions : 0;
}

at::Tensor inverse_frequencies(const DecoderConfig& config,
                               const RopeConfig& rope,
                               int64_t length,
                               double& factor) {
  const int64_t dims = rotated_dims(config, rope);
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
  const at::Tensor powers = at::pow(base, exponent);
  if (rope.type == "longrope") {
    return longrope(powers, config, rope, length, factor);
  }
  const at::Tensor inverse = powers.reciprocal();
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

namespace {

/// Frequencies of each row [N, R/2], by the length of its document.
at::Tensor frequencies_by_length(const DecoderConfig& config,
                                 const RopeConfig& rope,
                                 const at::Tensor& positions_N,
                                 const std::vector<int64_t>& offsets,
                                 double& factor) {
  const at::Tensor positions = positions_N.to(at::kCPU).contiguous();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  at::Tensor rows = at::empty({positions.size(0), rotated_dims(config, rope) / 2}, at::kFloat);
  at::Tensor inverse;
  int64_t inverse_for = -1;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    if (offsets[d] == offsets[d + 1]) {
      continue;
    }
    const int64_t length = position[offsets[d + 1] - 1] + 1;
    if (length != inverse_for) {
      inverse = inverse_frequencies(config, rope, length, factor);
      inverse_for = length;
    }
    rows.narrow(0, offsets[d], offsets[d + 1] - offsets[d]).copy_(inverse.unsqueeze(0));
  }
  return rows;
}

}  // namespace

tensor::Rotary rotary_table(const DecoderConfig& config,
                            const RopeConfig& rope,
                            const at::Tensor& positions_N,
                            const std::vector<int64_t>& offsets) {
  const at::NoGradGuard no_grad;
  const bool by_length = rope.type == "dynamic" || rope.type == "longrope";
  double factor = 1.0;
  const at::Tensor inverse = by_length
                                 ? frequencies_by_length(config, rope, positions_N, offsets, factor)
                                 : inverse_frequencies(config, rope, 0, factor).unsqueeze(0);
  const at::Tensor angles =
      positions_N.to(at::kFloat).unsqueeze(1) * inverse.to(positions_N.device());
  tensor::Rotary rotary{angles.cos(), angles.sin()};
  if (factor != 1.0) {
    rotary.cos_NR.mul_(factor);
    rotary.sin_NR.mul_(factor);
  }
  return rotary;
}

}  // namespace kamerton::model
