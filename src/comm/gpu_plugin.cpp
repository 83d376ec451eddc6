// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/gpu_plugin.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"

#include "gpu_backend.h"

namespace kamerton::comm {
namespace {

constexpr const char* kLibrary = "libkamerton_gpu.so";

/// Beside the program, or in lib/ beside its folder.
std::filesystem::path find_plugin() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path folder = program.parent_path();
  for (const auto& place : {folder / kLibrary,
                            folder.parent_path() / kLibrary,
                            folder.parent_path() / "lib" / kLibrary}) {
    if (std::filesystem::exists(place, error)) {
      return place;
    }
  }
  return {};
}

template <class Function>
Function symbol(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

/// Fills driver and devices through the driver's own interface (cuda.h's cuInit, cuDeviceGetCount,
/// cuDeviceGetName).
void ask_driver(GpuSight& sight) {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    sight.why = "no NVIDIA driver (libcuda.so.1)";
    return;
  }
  const auto init = symbol<int (*)(unsigned)>(library, "cuInit");
  const auto count = symbol<int (*)(int*)>(library, "cuDeviceGetCount");
  const auto name = symbol<int (*)(char*, int, int)>(library, "cuDeviceGetName");
  int devices = 0;
  if (init == nullptr || count == nullptr || name == nullptr || init(0) != 0 ||
      count(&devices) != 0) {
    sight.why = "the NVIDIA driver finds no device";
    return;
  }
  sight.driver = true;
  for (int i = 0; i < devices; ++i) {
    char text[128] = "unknown";
    name(text, sizeof text, i);
    sight.devices.emplace_back(text);
  }
  sight.why = devices == 0 ? "the NVIDIA driver finds no device" : "";
}

[[noreturn]] void refuse(const std::filesystem::path& path, std::string what, std::string got) {
  throw core::Error(core::ErrorKind::Config,
                    {.where = "comm.gpu_plugin",
                     .what = std::move(what) + " " + path.string(),
                     .got = std::move(got),
                     .hint = "build the program and the plug-in together: cmake --preset cuda"});
}

}  // namespace

GpuSight look_for_gpu() {
  GpuSight sight;
  sight.plugin = find_plugin();
  ask_driver(sight);
  if (sight.why.empty() && sight.plugin.empty()) {
    sight.why =
        fmt::format("{} is not beside the program (cmake --preset cuda builds it)", kLibrary);
  }
  return sight;
}

std::string describe_gpu() {
  const GpuSight sight = look_for_gpu();
  if (sight.devices.empty()) {
    return fmt::format("none: {}", sight.why);
  }
  return fmt::format("{} device(s) ({}), {}",
                     sight.devices.size(),
                     fmt::join(sight.devices, ", "),
                     sight.usable() ? "plug-in found" : "not used: " + sight.why);
}

Gpu::Gpu(const GpuSight& sight) {
  if (!sight.usable()) {
    refuse(sight.plugin, "no GPU can be used", sight.why);
  }
  // Never closed: libtorch_cuda has registered itself with ATen.
  void* library = dlopen(sight.plugin.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    refuse(sight.plugin, "cannot load", dlerror());
  }
  const auto version = symbol<int (*)()>(library, "kamerton_gpu_version");
  const auto create = symbol<GpuBackend* (*)()>(library, "kamerton_gpu_create");
  if (version == nullptr || create == nullptr || version() != kGpuPluginVersion) {
    refuse(sight.plugin,
           fmt::format("version {} is needed of", kGpuPluginVersion),
           version == nullptr ? "none" : std::to_string(version()));
  }
  backend_.reset(create());
}

void Gpu::use_device(int index) const {
  backend_->use_device(index);
}
GpuMemory Gpu::memory() const {
  return backend_->memory();
}
void Gpu::reset_peak() const {
  backend_->reset_peak();
}
Group Gpu::group(const Group& host, double deadline_s) const {
  return Group(backend_->make_group(host.impl(), deadline_s));
}

}  // namespace kamerton::comm
