// SPDX-License-Identifier: Apache-2.0
// The GPU side lives in a library of its own (libkamerton_gpu.so), so that one program runs with
// and without CUDA.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "kamerton/comm/group.h"

namespace kamerton::comm {

class GpuBackend;

/// What this machine offers; absent parts are no error.
struct GpuSight {
  bool driver = false;  ///< libcuda.so.1 loads and cuInit succeeds
  std::vector<std::string> devices;
  std::filesystem::path plugin;  ///< empty: not found
  std::string why;               ///< what is missing, in plain words; empty when all is there
  bool usable() const { return !devices.empty() && !plugin.empty(); }
};

/// Asks the driver and the file system, not ATen. Any rank, not collective.
GpuSight look_for_gpu();

/// One line for people: "2 devices (NVIDIA H200), plug-in found" or what is missing.
std::string describe_gpu();

struct GpuMemory {
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
  int64_t peak_bytes = 0;  ///< most that tensors held at once since the start or reset_peak()
};

/// The loaded plug-in.
class Gpu {
 public:
  /// Loads the library. To be called before anything asks ATen about CUDA (the answer is cached).
  /// Throws ErrorKind::Config when `sight` is not usable, when the library does not load or has
  /// another version.
  explicit Gpu(const GpuSight& sight);

  /// Makes device `index` current for this thread and for new streams.
  void use_device(int index) const;
  GpuMemory memory() const;
  void reset_peak() const;
  /// A group of the same ranks for device tensors (NCCL) and, as before, for host tensors.
  /// Collective over `host`. A collective that lasts longer than `deadline_s` aborts the
  /// communicators and ends the job (code 76).
  Group group(const Group& host, double deadline_s) const;

 private:
  std::shared_ptr<GpuBackend> backend_;
};

}  // namespace kamerton::comm
