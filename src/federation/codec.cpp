// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kamerton/core/error.h"
#include "kamerton/core/random.h"
#include "kamerton/federation/site_noise.h"

namespace kamerton::federation {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw core::Error(core::ErrorKind::Data, {.where = "federation.codec", .what = what});
}

uint16_t to_bf16(float value) {
  uint32_t bits = 0;
  std::memcpy(&bits, &value, 4);
  bits += 0x7FFFU + ((bits >> 16) & 1U);
  return static_cast<uint16_t>(bits >> 16);
}

float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value = 0;
  std::memcpy(&value, &wide, 4);
  return value;
}

void check_finite(std::span<const float> values) {
  for (const float value : values) {
    if (!std::isfinite(value)) {
      refuse("an update holds a number that is not finite");
    }
  }
}

class PlainCodec final : public Codec {
 public:
  int64_t block_bytes(int64_t count) const override { return 4 * count; }
  void encode(std::span<const float> in, int64_t, std::span<std::byte> out) const override {
    std::memcpy(out.data(), in.data(), in.size_bytes());
  }
  void decode(std::span<const std::byte> in, std::span<float> out) const override {
    std::memcpy(out.data(), in.data(), out.size_bytes());
    check_finite(out);
  }
  bool lossy() const override { return false; }
};

class HalfCodec final : public Codec {
 public:
  int64_t block_bytes(int64_t count) const override { return 2 * count; }
  void encode(std::span<const float> in, int64_t, std::span<std::byte> out) const override {
    for (size_t i = 0; i < in.size(); ++i) {
      const uint16_t bits = to_bf16(in[i]);
      std::memcpy(out.data() + 2 * i, &bits, 2);
    }
  }
  void decode(std::span<const std::byte> in, std::span<float> out) const override {
    for (size_t i = 0; i < out.size(); ++i) {
      uint16_t bits = 0;
      std::memcpy(&bits, in.data() + 2 * i, 2);
      out[i] = from_bf16(bits);
    }
    check_finite(out);
  }
};

class ByteCodec final : public Codec {
 public:
  int64_t block_bytes(int64_t count) const override { return 4 + count; }
  void encode(std::span<const float> in, int64_t, std::span<std::byte> out) const override {
    float largest = 0;
    for (const float value : in) {
      largest = std::max(largest, std::fabs(value));
    }
    const float scale = largest / 127.0F;
    std::memcpy(out.data(), &scale, 4);
    for (size_t i = 0; i < in.size(); ++i) {
      const float level = scale > 0 ? std::nearbyint(in[i] / scale) : 0.0F;
      out[4 + i] = static_cast<std::byte>(static_cast<int8_t>(std::clamp(level, -127.0F, 127.0F)));
    }
  }
  void decode(std::span<const std::byte> in, std::span<float> out) const override {
    float scale = 0;
    std::memcpy(&scale, in.data(), 4);
    if (!std::isfinite(scale) || scale < 0) {
      refuse("an update's scale is not a number");
    }
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = scale * static_cast<float>(static_cast<int8_t>(in[4 + i]));
    }
  }
};

class TopCodec final : public Codec {
 public:
  explicit TopCodec(double share) : share_(share) {}
  int64_t kept(int64_t count) const {
    return std::clamp<int64_t>(
        static_cast<int64_t>(std::ceil(share_ * static_cast<double>(count))), 1, count);
  }
  int64_t block_bytes(int64_t count) const override { return 4 * kept(count); }
  void encode(std::span<const float> in, int64_t, std::span<std::byte> out) const override {
    const auto keep = static_cast<size_t>(kept(static_cast<int64_t>(in.size())));
    std::vector<uint16_t> places(in.size());
    std::iota(places.begin(), places.end(), uint16_t{0});
    const auto larger = [&](uint16_t a, uint16_t b) {
      const float left = std::fabs(in[a]);
      const float right = std::fabs(in[b]);
      return left != right ? left > right : a < b;
    };
    std::nth_element(
        places.begin(), places.begin() + static_cast<int64_t>(keep) - 1, places.end(), larger);
    std::sort(places.begin(), places.begin() + static_cast<int64_t>(keep));
    for (size_t i = 0; i < keep; ++i) {
      const uint16_t bits = to_bf16(in[places[i]]);
      std::memcpy(out.data() + 4 * i, &places[i], 2);
      std::memcpy(out.data() + 4 * i + 2, &bits, 2);
    }
  }
  void decode(std::span<const std::byte> in, std::span<float> out) const override {
    std::fill(out.begin(), out.end(), 0.0F);
    int64_t before = -1;
    for (size_t i = 0; i < in.size() / 4; ++i) {
      uint16_t place = 0;
      uint16_t bits = 0;
      std::memcpy(&place, in.data() + 4 * i, 2);
      std::memcpy(&bits, in.data() + 4 * i + 2, 2);
      if (place >= out.size() || place <= before) {
        refuse("an update names a place twice or beyond its block");
      }
      before = place;
      out[place] = from_bf16(bits);
    }
    check_finite(out);
  }

 private:
  double share_;
};

class RingCodec final : public Codec {
 public:
  RingCodec(double range, uint64_t seed) : range_(range), noise_(seed, "federation.ring") {}
  int64_t block_bytes(int64_t count) const override { return 4 * count; }
  void encode(std::span<const float> in, int64_t block, std::span<std::byte> out) const override {
    const double per_unit = kRingLevels / (2 * range_);
    for (size_t i = 0; i < in.size(); ++i) {
      const double place = (std::clamp<double>(in[i], -range_, range_) + range_) * per_unit;
      const double down = std::floor(place);
      const auto key = static_cast<uint64_t>(block * kBlock) + i;
      const double up = noise_.uniform(key) < place - down ? 1.0 : 0.0;
      const auto level = static_cast<uint32_t>(std::min<double>(down + up, kRingLevels));
      std::memcpy(out.data() + 4 * i, &level, 4);
    }
  }
  void decode(std::span<const std::byte> in, std::span<float> out) const override {
    for (size_t i = 0; i < out.size(); ++i) {
      uint32_t level = 0;
      std::memcpy(&level, in.data() + 4 * i, 4);
      if (level > kRingLevels) {
        refuse("a fixed-point number is out of range");
      }
      out[i] = ring_mean(level, 1, range_);
    }
  }

 private:
  double range_;
  core::RandomStream noise_;
};

/// Signed steps of privacy::RingCodec, to which noise is added.
class NoisyRingCodec final : public Codec {
 public:
  explicit NoisyRingCodec(const privacy::RingCodec& ring) : ring_(ring) {
    const privacy::RingConfig& config = ring.config();
    most_ = std::ceil(static_cast<double>(config.levels) / 2 + config.noise_bound);
  }
  int64_t block_bytes(int64_t count) const override { return 4 * count; }
  void encode(std::span<const float> in, int64_t, std::span<std::byte> out) const override {
    std::vector<uint32_t> words(in.size());
    ring_.encode(in, std::span<uint32_t>(words));
    std::memcpy(out.data(), words.data(), 4 * words.size());
  }
  void decode(std::span<const std::byte> in, std::span<float> out) const override {
    std::vector<uint32_t> words(out.size());
    std::memcpy(words.data(), in.data(), 4 * words.size());
    for (const uint32_t word : words) {
      if (std::abs(static_cast<double>(static_cast<int32_t>(word))) > most_) {
        refuse("a fixed-point number is out of range");
      }
    }
    ring_.decode(std::span<const uint32_t>(words), out);
  }

 private:
  privacy::RingCodec ring_;
  double most_ = 0;
};

}  // namespace

float ring_mean(uint32_t sum, int64_t sites, double range) {
  const auto count = static_cast<double>(sites);
  return static_cast<float>((static_cast<double>(sum) * (2 * range / kRingLevels) - count * range) /
                            count);
}

std::unique_ptr<Codec> make_codec(const UpdateConfig& config, uint64_t noise_seed) {
  if (config.encoding == "bf16") {
    return std::make_unique<HalfCodec>();
  }
  if (config.encoding == "int8") {
    return std::make_unique<ByteCodec>();
  }
  if (config.encoding == "top_k") {
    return std::make_unique<TopCodec>(config.top_k);
  }
  if (config.encoding == "ring32") {
    return std::make_unique<RingCodec>(config.ring_range, noise_seed);
  }
  return std::make_unique<PlainCodec>();
}

std::unique_ptr<Codec> make_codec(const FederationConfig& config,
                                  int64_t elements,
                                  uint64_t noise_seed) {
  if (hides_sites(config)) {
    return std::make_unique<NoisyRingCodec>(site_noise_plan(config, elements).codec);
  }
  return make_codec(config.update, noise_seed);
}

int64_t travelling(const FederationConfig& config, int64_t elements) {
  return elements + (weighs_integers(config) ? 1 : 0);
}

int64_t encoded_offset(const Codec& codec, int64_t block) {
  return block * codec.block_bytes(kBlock);
}

int64_t encoded_size(const Codec& codec, int64_t elements) {
  const int64_t rest = elements % kBlock;
  return encoded_offset(codec, elements / kBlock) + (rest > 0 ? codec.block_bytes(rest) : 0);
}

}  // namespace kamerton::federation
