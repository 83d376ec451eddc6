// SPDX-License-Identifier: Apache-2.0
#include "measured_steps.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <stdexcept>

#include <nlohmann/json.hpp>

namespace kamerton::bench {

void measure(const std::string& command, int warm_up, MeasuredSteps& into) {
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
    if (record.contains("failure")) {
      into.failure = record["failure"].get<std::string>();
    } else if (record.contains("peak_bytes")) {
      into.peak_bytes = std::max(into.peak_bytes, record["peak_bytes"].get<double>());
    } else if (step++ >= warm_up) {
      into.seconds.push_back(record["seconds"].get<double>());
      into.cpu.push_back(record.value("cpu", 0.0));
    }
  }
  const int code = pclose(pipe);
  if (into.failure.empty() && (code != 0 || step <= warm_up)) {
    into.failure = "failed";
  }
}

double median(std::vector<double> values) {
  if (values.empty()) {
    return 0;
  }
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace kamerton::bench
