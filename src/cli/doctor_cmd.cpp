// SPDX-License-Identifier: Apache-2.0
// kamerton doctor and kamerton version: is the installation sound?
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include "kamerton/comm/gpu_plugin.h"
#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/mesh/threads.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/telemetry/memory.h"
#include "kamerton/tensor/allocator.h"

#include "command.h"

#ifndef KAMERTON_VERSION
#error "the build defines KAMERTON_VERSION"
#endif

namespace kamerton::cli {
namespace {

/// Prints one line; returns whether all is well.
bool line(bool good, const std::string& what, const std::string& found) {
  fmt::print("{} {:<22}{}\n", good ? "ok  " : "FAIL", what, found);
  return good;
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

bool check_compute() {
  const at::Tensor a = at::ones({1024, 1024});
  at::Tensor product = at::mm(a, a);  // the first call sets the library up
  const double seconds = seconds_of([&] { at::mm_out(product, a, a); });
  const bool right = product[5][7].item<float>() == 1024.0F;
  return line(
      right,
      "matrix product",
      fmt::format(
          "{:.0f} GFLOP/s in fp32 on {} thread(s)", 2.147 / seconds, at::get_num_threads()));
}

bool check_collective(const comm::Group& world) {
  at::Tensor values = at::full({1 << 20}, world.rank() + 1.0);
  world.barrier();
  const double seconds = seconds_of([&] { world.all_reduce(values); });
  const double expected = world.size() * (world.size() + 1) / 2.0;
  const bool right = !world.any(values[12345].item<float>() != static_cast<float>(expected));
  return world.rank() != 0 ||
         line(right,
              "all-reduce of 4 MiB",
              fmt::format("{} rank(s), {:.2f} ms", world.size(), seconds * 1e3));
}

bool check_disk(const std::filesystem::path& folder) {
  const std::filesystem::path probe = folder / ".kamerton-doctor";
  constexpr size_t kBytes = size_t{64} << 20;
  try {
    const std::string bytes(kBytes, 'k');
    const double seconds =
        seconds_of([&] { storage::write_file_atomic(storage::posix_filesystem(), probe, bytes); });
    const bool right = storage::posix_filesystem().read_file(probe, kBytes + 1) == bytes;
    storage::posix_filesystem().remove_all(probe);
    return line(right,
                "disk",
                fmt::format("{:.0f} MB/s written with fsync, {} free in {}",
                            static_cast<double>(kBytes) / 1e6 / seconds,
                            core::format_bytes(static_cast<uint64_t>(
                                storage::posix_filesystem().free_bytes(folder))),
                            std::filesystem::absolute(folder).string()));
  } catch (const core::Error& error) {
    storage::posix_filesystem().remove_all(probe);
    return line(false, "disk", error.what());
  }
}

bool check_allocator() {
  return line(tensor::allocator_installed(),
              "allocator",
              tensor::allocator_installed() ? "keeps its pages" : "not installed");
}

void show_cpu() {
  const bool bf16 = __builtin_cpu_supports("avx512bf16") != 0;
  line(true,
       "cpu",
       fmt::format("{}{}",
                   at::get_cpu_capability(),
                   bf16 ? ", bf16 instructions" : ", no bf16 instructions: fp32 is faster"));
  line(true,
       "memory",
       fmt::format("{} available",
                   core::format_bytes(static_cast<uint64_t>(telemetry::available_memory_bytes()))));
}

int run_doctor(const po::variables_map& arguments, comm::Session* session) {
  const comm::Group& world = session->world();
  const std::string threads = mesh::choose_threads(session->topology());
  bool good = true;
  if (world.rank() == 0) {
    line(true, "kamerton", KAMERTON_VERSION);
    line(true, "libtorch", TORCH_VERSION);
    line(true, "threads", threads);
    show_cpu();
    good = check_compute() && good;
    good = check_allocator() && good;
    good = check_disk(arguments["folder"].as<std::string>()) && good;
    line(true, "gpu", comm::describe_gpu());
  }
  good = check_collective(world) && good;
  good = !world.any(!good);
  if (world.rank() == 0) {
    fmt::print("{}\n",
               good ? "all is well" : "something is wrong: see the lines that begin with FAIL");
  }
  return good ? 0 : core::exit_code(core::ErrorKind::Internal);
}

int run_version(const po::variables_map&, comm::Session*) {
  fmt::print("kamerton {} (libtorch {})\n", KAMERTON_VERSION, TORCH_VERSION);
  return 0;
}

}  // namespace

Command doctor_command() {
  return {
      .name = "doctor",
      .summary = "checks compute, MPI, threads, GPU and disk of this installation",
      .usage = "kamerton doctor [--folder DIR]",
      .description = "Examples:\n  kamerton doctor\n  mpirun -np 2 kamerton doctor --folder runs",
      .needs_ranks = true,
      .add_options =
          [](po::options_description& options, po::positional_options_description&) {
            options.add_options()("folder",
                                  po::value<std::string>()->default_value("."),
                                  "where to test writing (64 MiB, removed again)");
          },
      .run = run_doctor};
}

Command version_command() {
  return {.name = "version",
          .summary = "versions of this program and its libraries",
          .usage = "kamerton version",
          .description = "",
          .add_options = [](po::options_description&, po::positional_options_description&) {},
          .run = run_version};
}

}  // namespace kamerton::cli
