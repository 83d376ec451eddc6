// SPDX-License-Identifier: Apache-2.0
// Loading a model directory cut over the ranks, beside reading its bytes once in one process.
// usage: mpirun -np N load_bench DIRECTORY [repeats = 7] [fp32 | bf16]
// Cold: the page cache forgets the files before each, as after a start of the machine. Hot: the
// files are in the page cache. Loading fills memory of the type given: of a directory in bf16 fp32
// are twice the bytes that reading writes. bf16: as frozen weights, without fp32 masters.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <unistd.h>

#include "kamerton/comm/session.h"
#include "kamerton/model/weights.h"
#include "kamerton/optim/sharded_parameters.h"
#include "kamerton/storage/safetensors.h"

namespace {

using namespace kamerton;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The page cache forgets the directory's files (they must be on the disk already).
void forget(const std::string& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
      ::fdatasync(file);
      ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
      ::close(file);
    }
  }
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
double load(const model::ModelOptions& options, const comm::Group& world, bool cold) {
  model::Decoder decoder(model::read_config(options.path), options);
  optim::OptimConfig config;
  config.zero_stage = 3;
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    parameter->trainable = parameter->trainable && options.dtype == "fp32";
  }
  optim::ShardedParameters parameters(
      decoder.units(), optim::ShardGroups{world, comm::Group()}, config, decoder.dtype());
  if (cold && world.rank() == 0) {
    forget(options.path);
  }
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  const auto weights = model::open_weights(options, decoder);
  parameters.load([&](const tensor::Parameter& parameter, int64_t offset, at::Tensor out) {
    weights->read(parameter, offset, out);
  });
  world.barrier();
  return seconds_since(start);
}

void compare(const model::ModelOptions& options, const comm::Group& world, int repeats, bool cold) {
  double reading = 1e30;
  double loading = 1e30;
  std::vector<std::byte> buffer;
  for (int i = cold ? 1 : 0; i <= repeats; ++i) {  // hot: the first of each warms up
    if (cold && world.rank() == 0) {
      forget(options.path);
    }
    const double once = world.rank() == 0 ? read_once(options.path, buffer) : 0.0;
    const double sharded = load(options, world, cold);
    if (i > 0) {
      reading = std::min(reading, once);
      loading = std::min(loading, sharded);
    }
  }
  if (world.rank() == 0) {
    const auto bytes =
        static_cast<double>(storage::SafetensorsModel::open(options.path).total_bytes());
    std::printf(
        "%s, %s, %d rank(s), %d thread(s) each: %.0f MB read once in %.3f s (%.0f MB/s), loaded in "
        "%.3f s: %.2f x\n",
        options.dtype.c_str(),
        cold ? "cold" : "hot",
        world.size(),
        at::get_num_threads(),
        bytes / 1e6,
        reading,
        bytes / 1e6 / reading,
        loading,
        loading / reading);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  comm::Session session(argc, argv);
  try {
    const comm::Group& world = session.world();
    model::ModelOptions options;
    options.path = argc > 1 ? argv[1] : "models/SmolLM2-135M-Instruct";
    options.dtype = argc > 3 ? argv[3] : "fp32";
    options.device = "cpu";
    const int repeats = argc > 2 ? std::max(1, std::atoi(argv[2])) : 7;
    for (const bool cold : {true, false}) {
      compare(options, world, repeats, cold);
    }
    return 0;
  } catch (const std::exception& error) {
    session.abort(error);
  }
}
