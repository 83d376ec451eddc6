// SPDX-License-Identifier: Apache-2.0
// Save and load in MB/s, beside write(2) + fsync of the same bytes and, where a Python with torch
// is named by KAMERTON_PEER_PYTHON, beside torch.save + fsync and torch.load of the same tensors.
// One rank. usage: checkpoint_bench FOLDER [MiB = 1024] [repeats = 3]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/checkpoint/store.h"
#include "kamerton/core/clock.h"

namespace {

namespace fs = std::filesystem;
using kamerton::checkpoint::Slice;

constexpr int64_t kTensorBytes = int64_t{8} << 20;  // 2 Mi floats, a matrix of a 0.5 B model

/// The best of several: the disk is shared and only its best moments say what the code costs.
struct Best {
  double seconds = 1e30;
  void add(double value) { seconds = std::min(seconds, value); }
  double mb_per_s(int64_t bytes) const { return static_cast<double>(bytes) / seconds / 1e6; }
};

void need(bool fine, const char* what) {
  if (!fine) {
    throw std::runtime_error(std::string(what) + " failed");
  }
}

double timed(const auto& body) {
  const kamerton::core::SteadyClock clock;
  const double start = clock.now_s();
  body();
  return clock.now_s() - start;
}

void raw_write(const fs::path& path, const std::vector<std::vector<float>>& tensors) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  need(file >= 0, "open");
  for (const auto& tensor : tensors) {
    const auto size = static_cast<ssize_t>(tensor.size() * sizeof(float));
    need(::write(file, tensor.data(), static_cast<size_t>(size)) == size, "write");
  }
  need(::fsync(file) == 0 && ::close(file) == 0, "fsync");
}

void raw_read(const fs::path& path, std::vector<std::vector<float>>& tensors) {
  const int file = ::open(path.c_str(), O_RDONLY);
  need(file >= 0, "open");
  for (auto& tensor : tensors) {
    const auto size = static_cast<ssize_t>(tensor.size() * sizeof(float));
    need(::read(file, tensor.data(), static_cast<size_t>(size)) == size, "read");
  }
  ::close(file);
}

constexpr char kPeer[] = R"py(
import os, sys, time, torch
folder, count, elements, repeats = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
state = {f"t{i}": torch.full((elements,), float(i)) for i in range(count)}
path = os.path.join(folder, "peer.pt")
save, load = [], []
for _ in range(repeats):
    start = time.monotonic()
    with open(path, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    save.append(time.monotonic() - start)
    start = time.monotonic()
    loaded = torch.load(path, weights_only=True)
    load.append(time.monotonic() - start)
    del loaded
os.remove(path)
size = count * elements * 4 / 1e6
print(f"torch.save + fsync       {size / min(save):8.0f} MB/s")
print(f"torch.load               {size / min(load):8.0f} MB/s   (no digest)")
)py";

void run_peer(const fs::path& folder, size_t count, size_t elements, int repeats) {
  const char* python = std::getenv("KAMERTON_PEER_PYTHON");
  if (python == nullptr || *python == '\0') {
    std::printf(
        "torch.save / torch.load  peer not available (KAMERTON_PEER_PYTHON names no Python with "
        "torch)\n");
    return;
  }
  const auto script = folder / "peer.py";
  std::ofstream(script) << kPeer;
  std::fflush(stdout);
  const auto command = std::string("'") + python + "' '" + script.string() + "' '" +
                       folder.string() + "' " + std::to_string(count) + " " +
                       std::to_string(elements) + " " + std::to_string(repeats);
  if (std::system(command.c_str()) != 0) {
    std::printf("torch.save / torch.load  peer not available (it failed)\n");
  }
  fs::remove(script);
}

void run(const fs::path& folder, int64_t mib, int repeats) {
  const auto count = static_cast<size_t>(std::max<int64_t>(1, (mib << 20) / kTensorBytes));
  const auto elements = static_cast<size_t>(kTensorBytes / 4);
  std::vector<std::vector<float>> tensors(count, std::vector<float>(elements));
  std::vector<Slice> slices;
  for (size_t i = 0; i < count; ++i) {
    std::fill(tensors[i].begin(), tensors[i].end(), static_cast<float>(i));
    slices.push_back({"t" + std::to_string(i),
                      kamerton::storage::DType::F32,
                      {static_cast<int64_t>(elements / 1024), 1024},
                      0,
                      static_cast<int64_t>(elements),
                      tensors[i].data()});
  }
  const auto bytes = static_cast<int64_t>(count) * kTensorBytes;
  Best write_raw, read_raw, save, load, load_again, write_part, digest_part;
  for (int i = 0; i < repeats; ++i) {
    write_raw.add(timed([&] { raw_write(folder / "raw", tensors); }));
    read_raw.add(timed([&] { raw_read(folder / "raw", tensors); }));
    fs::remove(folder / "raw");
    kamerton::checkpoint::Store store(folder / "store", {}, {.keep = 1});
    const auto report = store.save(1, slices, {});
    save.add(report.seconds);
    write_part.add(report.write_s);
    digest_part.add(report.digest_s);
    load.add(timed([&] { store.load(1, slices); }));
    load_again.add(timed([&] { store.load(1, slices); }));
    fs::remove_all(folder / "store");
  }
  std::printf("%zu tensors, %.0f MB, best of %d, page cache warm for reading\n",
              count,
              static_cast<double>(bytes) / 1e6,
              repeats);
  std::printf("write(2) + fsync         %8.0f MB/s\n", write_raw.mb_per_s(bytes));
  std::printf(
      "kamerton save            %8.0f MB/s   %3.0f %% of raw (HDF5 write %.2f s; fsync with digest "
      "%.2f s)\n",
      save.mb_per_s(bytes),
      100.0 * write_raw.seconds / save.seconds,
      write_part.seconds,
      digest_part.seconds);
  std::printf("read(2)                  %8.0f MB/s\n", read_raw.mb_per_s(bytes));
  std::printf("kamerton load            %8.0f MB/s   (digest checked)\n", load.mb_per_s(bytes));
  std::printf("kamerton load, again     %8.0f MB/s   (digest known)\n", load_again.mb_per_s(bytes));
  run_peer(folder, count, elements, repeats);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::fprintf(stderr, "usage: checkpoint_bench FOLDER [MiB] [repeats]\n");
    return 64;
  }
  try {
    const auto folder = fs::path(argv[1]) / "kamerton-checkpoint-bench";
    fs::create_directories(folder);
    run(folder, argc > 2 ? std::atoll(argv[2]) : 1024, argc > 3 ? std::atoi(argv[3]) : 3);
    fs::remove_all(folder);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 70;
  }
}
