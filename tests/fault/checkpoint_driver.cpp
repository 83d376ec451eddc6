// SPDX-License-Identifier: Apache-2.0
// The save protocol without MPI and without libtorch, so that it can be killed at every system call
// in milliseconds. usage: checkpoint_driver save FOLDER STEP     two ranks' files and the
// publication, in one process
//        checkpoint_driver check FOLDER         what a start does: recover, find the latest, load
//        and compare everything
// `save` exits with the error's code; `check` prints the step it loaded and exits 0, or says what
// is wrong and exits 1.
#include <cstdio>
#include <cstring>
#include <exception>
#include <set>
#include <string>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "payload/commit.h"
#include "payload/index_file.h"
#include "payload/rank_file.h"
#include "payload/run_lock.h"
#include "unit/checkpoint/state_samples.h"

namespace kamerton::checkpoint {
namespace {

constexpr int kWorld = 2;
constexpr int64_t kKeep = 1;

void save(const std::filesystem::path& root, int64_t step) {
  auto& files = storage::posix_filesystem();
  files.make_directories(root);
  RunLock lock(root, "", 900);
  recover(files, root);
  begin_save(files, root, step);
  try {
    std::vector<RankPart> parts;
    for (int rank = 0; rank < kWorld; ++rank) {
      SampleShard shard(rank, kWorld, step, true);
      check_slices(shard.slices(), true);
      WriteTimes times;
      parts.push_back(write_rank_file(
          staging_folder(root, step), {step, rank, kWorld}, shard.slices(), 1, times));
    }
    auto manifest = assemble(std::move(parts));
    manifest.step = step;
    manifest.extra = {{"step", step}};
    write_index(staging_folder(root, step) / "index.h5", manifest);
    manifest.files.push_back(seal_file(staging_folder(root, step) / "index.h5", 1));
    lock.renew();
    publish_save(files, root, manifest);
    prune(files, root, step, kKeep);
  } catch (const std::exception&) {
    abandon_save(files, root, step);
    throw;
  }
}

int check(const std::filesystem::path& root) {
  auto& files = storage::posix_filesystem();
  const RunLock lock(root, "", 900);
  recover(files, root);
  const auto step = latest_step(files, root);
  if (!step) {
    std::printf("no complete checkpoint\n");
    return 1;
  }
  const auto manifest = read_manifest(files, root, *step);
  SampleShard whole(0, 1, *step, false);
  std::set<std::string> checked;
  read_slices(root / step_name(*step), manifest, whole.slices(), 1, checked);
  if (whole.num_wrong() != 0 || checked.size() != kWorld) {
    std::printf("step %lld has %lld wrong bytes\n",
                static_cast<long long>(*step),
                static_cast<long long>(whole.num_wrong()));
    return 1;
  }
  for (const auto& name : files.list(root)) {
    if (name != "LATEST" && name != ".lock" && !parse_step_name(name)) {
      std::printf("left behind: %s\n", name.c_str());
      return 1;
    }
  }
  std::printf("%lld\n", static_cast<long long>(*step));
  return 0;
}

}  // namespace
}  // namespace kamerton::checkpoint

int main(int argc, char** argv) {
  try {
    if (argc == 4 && std::strcmp(argv[1], "save") == 0) {
      kamerton::checkpoint::save(argv[2], std::stoll(argv[3]));
      return 0;
    }
    if (argc == 3 && std::strcmp(argv[1], "check") == 0) {
      return kamerton::checkpoint::check(argv[2]);
    }
    std::fprintf(stderr, "usage: checkpoint_driver save FOLDER STEP | check FOLDER\n");
    return 64;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return kamerton::core::exit_code(error);
  }
}
