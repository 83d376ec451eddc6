// SPDX-License-Identifier: Apache-2.0
#include "kamerton/mesh/mesh.h"

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::mesh {
namespace {

std::string divisors(int number) {
  std::string text;
  for (int divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) {
      text += (text.empty() ? "" : ", ") + std::to_string(divisor);
    }
  }
  return text;
}

}  // namespace

Extents fit(const MeshConfig& config, int world_size) {
  const int64_t shard =
      config.shard > 0 ? config.shard : world_size / std::max<int64_t>(config.replicate, 1);
  if (config.replicate < 1 || shard < 1 || config.replicate * shard != world_size) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "mesh.fit",
         .what = "the mesh does not fit the number of ranks",
         .got = fmt::format("mesh.replicate {} x mesh.shard {} on {} rank(s)",
                            config.replicate,
                            config.shard == 0 ? "auto" : std::to_string(config.shard),
                            world_size),
         .allowed =
             fmt::format("a product of {}; replicate one of {}", world_size, divisors(world_size)),
         .hint = "mesh.shard: 0 takes all ranks that replicate leaves"});
  }
  return {static_cast<int>(config.replicate), static_cast<int>(shard)};
}

Mesh::Mesh(const Extents& extents, comm::Group world, comm::Group replicate, comm::Group shard)
    : extents_(extents),
      world_(std::move(world)),
      replicate_(std::move(replicate)),
      shard_(std::move(shard)) {}

std::string Mesh::describe() const {
  return fmt::format("replicate {} x shard {} ({} rank{})",
                     extents_.replicate,
                     extents_.shard,
                     world_.size(),
                     world_.size() == 1 ? "" : "s");
}

Mesh build(const MeshConfig& config, const comm::Group& world) {
  const Extents extents = fit(config, world.size());
  if (world.size() == 1) {
    return {extents, world, comm::Group(), comm::Group()};
  }
  // Neighbours share a shard group: rank = replica * shard_size + place in the shard.
  comm::Group shard = world.split(world.rank() / extents.shard, world.rank(), "shard");
  comm::Group replicate = world.split(world.rank() % extents.shard, world.rank(), "replicate");
  return {extents, world, std::move(replicate), std::move(shard)};
}

}  // namespace kamerton::mesh
