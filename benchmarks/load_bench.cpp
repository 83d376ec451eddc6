// SPDX-License-Identifier: Apache-2.0
// Loading a model directory cut over the ranks, beside reading its bytes once in one process.
// usage: mpirun -np N load_bench DIRECTORY [repeats = 7]
// Both in fp32 memory of the stored type's size where the directory stores fp32; the page cache is
// warm for both (the first run of each is not counted).
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kamerton/comm/session.h"
#include "kamerton/model/weights.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/storage/safetensors.h"

namespace {

using namespace kamerton;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Rank 0 reads every tensor's bytes into memory that is there already.
double read_once(const std::string& directory, std::vector<std::byte>& buffer) {
  const auto start = std::chrono::steady_clock::now();
  const auto model = storage::SafetensorsModel::open(directory);
  for (const std::string& name : model.names()) {
    const uint64_t size = model.entry(name).size;
    buffer.resize(std::max<size_t>(buffer.size(), size));
    model.read(name, 0, std::span(buffer).first(size));
  }
  return seconds_since(start);
}

/// Open, check and fill the rank's shard; placing the memory is not part of it.
double load(const model::ModelOptions& options, const comm::Group& world) {
  model::Decoder decoder(model::read_config(options.path), options);
  optim::OptimConfig config;
  config.zero_stage = 3;
  optim::ShardedParameters parameters(
      decoder.units(), optim::ShardGroups{world, comm::Group()}, config, at::kFloat);
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  const auto weights = model::open_weights(options, decoder);
  parameters.load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    weights->read(parameter, offset, out);
  });
  world.barrier();
  return seconds_since(start);
}

}  // namespace

int main(int argc, char** argv) {
  comm::Session session(argc, argv);
  try {
    const comm::Group& world = session.world();
    model::ModelOptions options;
    options.path = argc > 1 ? argv[1] : "models/SmolLM2-135M-Instruct";
    options.dtype = "fp32";
    options.device = "cpu";
    const int repeats = argc > 2 ? std::max(1, std::atoi(argv[2])) : 7;
    double reading = 1e30;
    double loading = 1e30;
    std::vector<std::byte> buffer;
    for (int i = 0; i <= repeats; ++i) {
      const double once = world.rank() == 0 ? read_once(options.path, buffer) : 0.0;
      const double sharded = load(options, world);
      if (i > 0) {
        reading = std::min(reading, once);
        loading = std::min(loading, sharded);
      }
    }
    if (world.rank() == 0) {
      const auto bytes =
          static_cast<double>(storage::SafetensorsModel::open(options.path).total_bytes());
      std::printf("%d rank(s): %.0f MB read once in %.3f s (%.0f MB/s), loaded in %.3f s: %.2f x\n",
                  world.size(),
                  bytes / 1e6,
                  reading,
                  bytes / 1e6 / reading,
                  loading,
                  loading / reading);
    }
    return 0;
  } catch (const std::exception& error) {
    session.abort(error);
  }
}
