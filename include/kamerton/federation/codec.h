// SPDX-License-Identifier: Apache-2.0
// How an update becomes bytes. Blocks of 1024 elements of a fixed size each, so that ranks encode
// and coordinators decode any range on their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kamerton/federation/config.h"

namespace kamerton::federation {

/// Elements of a block; the last one of a vector may be shorter.
inline constexpr int64_t kBlock = 1024;

class Codec {
 public:
  virtual ~Codec() = default;
  /// Of a block of `count` elements, 1 to kBlock.
  virtual int64_t block_bytes(int64_t count) const = 0;
  /// in.size() == count, out.size() == block_bytes(count). Values must be finite. `block`: number
  /// of the block, the key of random rounding.
  virtual void encode(std::span<const float> in, int64_t block, std::span<std::byte> out) const = 0;
  /// ErrorKind::Data for bytes that encode() cannot have written (not finite, out of range).
  virtual void decode(std::span<const std::byte> in, std::span<float> out) const = 0;
  /// Whether decode(encode(x)) may differ from x.
  virtual bool lossy() const { return true; }
};

/// f32: as they are. bf16: nearest, ties to even. int8: fp32 scale (largest magnitude / 127), then
/// one byte each. top_k: ceil(share * count) largest magnitudes as (uint16 place, bf16 value),
/// places rising. ring32: see ring_step(); rounded at random, keyed by `noise_seed` and the block.
std::unique_ptr<Codec> make_codec(const UpdateConfig& config, uint64_t noise_seed);

/// Of a run: ring32 with the steps of its noise where sites are hidden (site_noise.h), else as
/// above. `elements`: of the vector that travels.
std::unique_ptr<Codec> make_codec(const FederationConfig& config,
                                  int64_t elements,
                                  uint64_t noise_seed);

int64_t encoded_size(const Codec& codec, int64_t elements);
/// Elements of a file for an update of `elements`: one more, a weight, where sums are weighted.
int64_t travelling(const FederationConfig& config, int64_t elements);
/// Where block number `block` begins.
int64_t encoded_offset(const Codec& codec, int64_t block);

/// ring32: integer 0 ... kRingLevels stands for -range ... range.
inline constexpr uint32_t kRingLevels = uint32_t{1} << 20;
/// Sites that a sum in Z_2^32 holds without wrapping: sites * kRingLevels < 2^32.
inline constexpr int64_t kRingMostSites = 4095;
/// The mean of `sites` updates whose integers add up to `sum` (mod 2^32).
float ring_mean(uint32_t sum, int64_t sites, double range);

}  // namespace kamerton::federation
