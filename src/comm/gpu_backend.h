// SPDX-License-Identifier: Apache-2.0
// What libkamerton_gpu.so offers to the program. Raise kGpuPluginVersion with every change here or
// in group_impl.h.
#pragma once

#include <memory>

#include "kamerton/comm/gpu_plugin.h"

#include "group_impl.h"

namespace kamerton::comm {

inline constexpr int kGpuPluginVersion = 1;

class GpuBackend {
 public:
  virtual ~GpuBackend() = default;
  virtual void use_device(int index) = 0;
  virtual GpuMemory memory() = 0;
  virtual void reset_peak() = 0;
  virtual std::shared_ptr<GroupImpl> make_group(std::shared_ptr<GroupImpl> host,
                                                double deadline_s) = 0;
};

}  // namespace kamerton::comm

extern "C" {
/// kGpuPluginVersion of the library.
int kamerton_gpu_version();
/// A new backend, to be deleted by the caller.
kamerton::comm::GpuBackend* kamerton_gpu_create();
}
