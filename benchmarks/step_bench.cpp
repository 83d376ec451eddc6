// SPDX-License-Identifier: Apache-2.0
// One training step beside PyTorch eager + transformers (peer_step.py), in alternating runs on the
// same machine:
//   step_bench --python <python with torch and transformers> [--jemalloc <libjemalloc.so.2>]
//   [--rounds 3] [--steps 6]
//              [--ranks 1] [--shapes S,M] [--dtypes fp32,bf16]
// Prints a table: median tokens/s of either, their ratio, CPU seconds a step, peak memory of a
// rank. CPU seconds tell more than wall time when others use the machine.
#include <algorithm>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "measured_steps.h"
#include "step_worker.h"

namespace kamerton::bench {
namespace {

using Arguments = std::map<std::string, std::string>;

/// "--name value" pairs and "--worker" alone.
Arguments parse(int argc, char** argv) {
  Arguments arguments = {{"python", ""},
                         {"jemalloc", ""},
                         {"peer", ""},
                         {"rounds", "3"},
                         {"steps", "6"},
                         {"ranks", "1"},
                         {"shapes", "S,M"},
                         {"threads", "2"},
                         {"dtypes", "fp32,bf16"},
                         {"shape", "S"},
                         {"dtype", "fp32"}};
  for (int i = 1; i < argc; ++i) {
    const std::string name = std::string(argv[i]).substr(2);
    if (name == "worker") {
      arguments["worker"] = "1";
    } else if (arguments.count(name) == 0 || i + 1 == argc) {
      throw std::invalid_argument(std::string("unknown or incomplete option ") + argv[i]);
    } else {
      arguments[name] = argv[++i];
    }
  }
  return arguments;
}

constexpr int kWarmUp = 2;

void measure_or_stop(const std::string& command, MeasuredSteps& into) {
  measure(command, kWarmUp, into);
  if (!into.failure.empty()) {
    throw std::runtime_error(into.failure + ": " + command);
  }
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::stringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) {
    parts.push_back(part);
  }
  return parts;
}

std::string our_command(const std::string& self, const Arguments& a, const std::string& options) {
  const std::string launch =
      a.at("ranks") == "1"
          ? std::string()
          : fmt::format("mpirun --allow-run-as-root --oversubscribe --bind-to none -np {} ",
                        a.at("ranks"));
  return fmt::format("{}{} --worker {}", launch, self, options);
}

std::string peer_command(const Arguments& a, const std::string& options) {
  const std::string preload =
      a.at("jemalloc").empty()
          ? std::string()
          : fmt::format("LD_PRELOAD={} MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1 ",
                        a.at("jemalloc"));
  const std::string launch =
      a.at("ranks") == "1"
          ? std::string()
          : fmt::format("-m torch.distributed.run --nproc-per-node {} ", a.at("ranks"));
  return fmt::format(
      "{}{} {}{} {} 2>/dev/null", preload, a.at("python"), launch, a.at("peer"), options);
}

void compare(const std::string& self,
             const Arguments& a,
             const std::string& shape,
             const std::string& dtype) {
  const std::string options = fmt::format("--shape {} --dtype {} --steps {} --threads {}",
                                          shape,
                                          dtype,
                                          a.at("steps"),
                                          a.at("threads"));
  MeasuredSteps ours;
  MeasuredSteps peer;
  for (int round = 0; round < std::stoi(a.at("rounds")); ++round) {
    measure_or_stop(our_command(self, a, options), ours);
    if (!a.at("python").empty()) {
      measure_or_stop(peer_command(a, options), peer);
    }
  }
  const double tokens = 2048.0 * std::stod(a.at("ranks"));
  const double mine = tokens / median(ours.seconds);
  const double theirs = peer.seconds.empty() ? 0 : tokens / median(peer.seconds);
  std::cout << fmt::format(
                   "| {} {} | {:.0f} | {:.0f} | {:.2f} | {:.2f} / {:.2f} | {:.0f} / {:.0f} |\n",
                   shape,
                   dtype,
                   mine,
                   theirs,
                   theirs > 0 ? mine / theirs : 0.0,
                   median(ours.cpu),
                   median(peer.cpu),
                   ours.peak_bytes / (1 << 20),
                   peer.peak_bytes / (1 << 20))
            << std::flush;
}

int run(int argc, char** argv) {
  Arguments a = parse(argc, argv);
  if (a.count("worker") != 0) {
    return run_worker(argc,
                      argv,
                      {.shape = a["shape"],
                       .dtype = a["dtype"],
                       .steps = std::stoi(a["steps"]),
                       .threads = std::stoi(a["threads"])});
  }
  if (a["peer"].empty()) {
    a["peer"] = KAMERTON_PEER_STEP;
  }
  std::cout
      << "| shape | ours, tokens/s | PyTorch, tokens/s | ratio | CPU s a step | peak MiB a rank |\n"
         "|---|---|---|---|---|---|\n";
  for (const std::string& shape : split(a["shapes"])) {
    for (const std::string& dtype : split(a["dtypes"])) {
      compare(argv[0], a, shape, dtype);
    }
  }
  return 0;
}

}  // namespace
}  // namespace kamerton::bench

int main(int argc, char** argv) {
  try {
    return kamerton::bench::run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
