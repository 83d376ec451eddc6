// SPDX-License-Identifier: Apache-2.0
// One training step beside PyTorch eager + transformers (peer_step.py), in alternating runs on the
// same machine:
//   step_bench --python <python with torch and transformers> [--jemalloc <libjemalloc.so.2>]
//   [--rounds 3] [--steps 6]
//              [--ranks 1] [--shapes S,M] [--dtypes fp32,bf16]
// Prints a table: median tokens/s of either, their ratio, CPU seconds a step, peak memory of a
// rank. CPU seconds tell more than wall time when others use the machine.
#include <algorithm>
#include <array>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

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

struct Measurement {
  std::vector<double> seconds;
  std::vector<double> cpu;
  double first_loss = 0;
  double peak_bytes = 0;
};

/// Runs a command; adds its steps, the first two (warm-up) left out.
void measure(const std::string& command, Measurement& into) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) {
    throw std::runtime_error("cannot run " + command);
  }
  std::array<char, 4096> line{};
  int step = 0;
  while (fgets(line.data(), line.size(), pipe) != nullptr) {
    if (line[0] != '{') {
      continue;
    }
    const auto record = nlohmann::json::parse(line.data());
    if (record.contains("peak_bytes")) {
      into.peak_bytes = std::max(into.peak_bytes, record["peak_bytes"].get<double>());
    } else if (step++ >= 2) {
      into.seconds.push_back(record["seconds"].get<double>());
      into.cpu.push_back(record["cpu"].get<double>());
    }
  }
  if (pclose(pipe) != 0 || step == 0) {
    throw std::runtime_error("failed: " + command);
  }
}

double median(std::vector<double> values) {
  if (values.empty()) {
    return 0;
  }
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
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
  Measurement ours;
  Measurement peer;
  for (int round = 0; round < std::stoi(a.at("rounds")); ++round) {
    measure(our_command(self, a, options), ours);
    if (!a.at("python").empty()) {
      measure(peer_command(a, options), peer);
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
