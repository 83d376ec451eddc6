// SPDX-License-Identifier: Apache-2.0
// Training steps on one GPU beside PyTorch (peer_gpu.py, eager and torch.compile) on the same card
// in the same run:
//   gpu_bench [--python <python with torch and transformers>] [--shapes 0.5B,1.5B,3B] [--steps 12]
//             [--batch N] [--out FILE.md]
// Prints a table of tokens/s, both MFU formulas and the peak of device memory; --out also writes it
// as Markdown with the card's name. Without a device: "skipped: <reason>" and code 0.
#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "gpu_shapes.h"
#include "gpu_worker.h"
#include "measured_steps.h"

namespace kamerton::bench {
namespace {

using Arguments = std::map<std::string, std::string>;

Arguments parse(int argc, char** argv) {
  Arguments arguments = {{"python", ""},
                         {"peer", KAMERTON_PEER_GPU},
                         {"shapes", "0.5B,1.5B,3B"},
                         {"steps", "12"},
                         {"batch", "0"},
                         {"out", ""},
                         {"worker", ""}};
  for (int i = 1; i < argc; i += 2) {
    const std::string name = std::string(argv[i]).substr(0, 2) == "--" ? argv[i] + 2 : argv[i];
    if (arguments.count(name) == 0 || i + 1 == argc) {
      throw std::invalid_argument(std::string("unknown or incomplete option ") + argv[i]);
    }
    arguments[name] = argv[i + 1];
  }
  return arguments;
}

constexpr int kWarmUp = 4;  // steps left out: allocation, autotuning, compilation

MeasuredSteps measured(const std::string& command) {
  MeasuredSteps result;
  measure(command, kWarmUp, result);
  return result;
}

/// Dense bf16 FLOP/s by the makers' data sheets; none for cards that are not listed.
std::optional<double> peak_of(const std::string& card) {
  constexpr std::array<std::pair<const char*, double>, 3> kPeaks = {
      {{"H100", 989e12}, {"H200", 989e12}, {"A100", 312e12}}};
  for (const auto& [name, peak] : kPeaks) {
    if (card.find(name) != std::string::npos) {
      return peak;
    }
  }
  return std::nullopt;
}

std::string share(double flops, std::optional<double> peak) {
  return peak.has_value() ? fmt::format("{:.1f} %", 100.0 * flops / *peak) : "";
}

std::string row(const GpuShape& shape,
                const std::string& who,
                int64_t batch,
                const MeasuredSteps& m,
                std::optional<double> peak) {
  const std::string head = fmt::format("| {} | {} x {} | {} |", shape.name, batch, kGpuLength, who);
  if (!m.failure.empty()) {
    return fmt::format("{} {} | | | |\n", head, m.failure);
  }
  const double rate = static_cast<double>(batch * kGpuLength) / median(m.seconds);
  return fmt::format("{} {:.0f} | {} | {} | {:.1f} |\n",
                     head,
                     rate,
                     share(rate * flops_per_token(shape, false), peak),
                     share(rate * flops_per_token(shape, true), peak),
                     m.peak_bytes / (1 << 30));
}

std::string peer_command(const Arguments& a, const GpuShape& shape, int64_t batch, bool compile) {
  return fmt::format("{} {} --config '{}' --batch {} --length {} --steps {}{} 2>/dev/null",
                     a.at("python"),
                     a.at("peer"),
                     config_of(shape),
                     batch,
                     kGpuLength,
                     a.at("steps"),
                     compile ? " --compile" : "");
}

std::string rows_of(const std::string& self,
                    const Arguments& a,
                    const GpuShape& shape,
                    std::optional<double> peak) {
  const int64_t wished = std::stoll(a.at("batch"));
  const int64_t batch = wished > 0 ? wished : shape.batch;
  const std::string ours =
      fmt::format("{} --worker {} --batch {} --steps {}", self, shape.name, batch, a.at("steps"));
  std::string text = row(shape, "Kamerton", batch, measured(ours), peak);
  if (!a.at("python").empty()) {
    for (const bool compile : {false, true}) {
      text += row(shape,
                  compile ? "PyTorch, torch.compile" : "PyTorch, eager",
                  batch,
                  measured(peer_command(a, shape, batch, compile)),
                  peak);
    }
  }
  return text;
}

std::string title(const std::string& card, std::optional<double> peak) {
  return fmt::format(
      "# Training steps on {}\n\n"
      "bf16 products, fp32 masters, AdamW, random weights, whole steps, median after {} warm-up "
      "steps. MFU against {}:\n"
      "full = 6 N + 12 L d T, causal = 6 N + 6 L d T FLOP a token, N the parameters in matrix "
      "products (the tied head\nonce, no embedding).\n\n"
      "| model | batch | program | tokens/s | mfu_full | mfu_causal | peak GiB |\n"
      "|---|---|---|---|---|---|---|\n",
      card,
      kWarmUp,
      peak.has_value() ? fmt::format("{:.0f} TFLOP/s, the card's dense bf16 peak", *peak / 1e12)
                       : std::string("no peak: this card is not listed"));
}

int run(int argc, char** argv) {
  const Arguments a = parse(argc, argv);
  const comm::GpuSight sight = comm::look_for_gpu();
  if (!sight.usable()) {
    std::cout << "skipped: " << sight.why << "\n";
    return 0;
  }
  if (!a.at("worker").empty()) {
    return run_gpu_worker(
        sight, gpu_shape(a.at("worker")), std::stoll(a.at("batch")), std::stoi(a.at("steps")));
  }
  const std::optional<double> peak = peak_of(sight.devices.front());
  std::string text = title(sight.devices.front(), peak);
  std::cout << text << std::flush;
  std::stringstream names(a.at("shapes"));
  for (std::string name; std::getline(names, name, ',');) {
    const std::string rows = rows_of(argv[0], a, gpu_shape(name), peak);
    std::cout << rows << std::flush;
    text += rows;
  }
  if (!a.at("out").empty()) {
    std::ofstream(a.at("out")) << text;
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
