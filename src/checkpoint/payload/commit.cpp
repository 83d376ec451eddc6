// SPDX-License-Identifier: Apache-2.0
#include "payload/commit.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"

namespace kamerton::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr char kWhere[] = "checkpoint.commit";
constexpr char kManifest[] = "manifest.json";
constexpr char kLatest[] = "LATEST";
constexpr char kStaging[] = ".saving-";  // being written
constexpr char kReplaced[] =
    ".replaced-";  // the former checkpoint of a step that is being saved again
constexpr char kRemoving[] = ".removing-";  // being deleted
constexpr char kLockLitter[] = ".lock.";    // of a run that died while it took the lock
constexpr uint64_t kMaxManifest = uint64_t{4} << 30;

/// Flushes the root after a rename that already shows; a failure here leaves the outcome open.
void confirm(storage::FileSystem& files, const fs::path& root, int64_t step) {
  try {
    files.sync_directory(root);
  } catch (const core::Error& error) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = kWhere,
                       .what = "outcome unknown: checkpoint " + step_name(step) +
                               " is visible, but that it is durable could not be confirmed; older "
                               "checkpoints are kept",
                       .got = error.what(),
                       .allowed = "",
                       .hint = "looking at the disk, then saving again"});
  }
}

void move_latest(storage::FileSystem& files, const fs::path& root, int64_t step) {
  const auto latest = root / kLatest;
  auto temporary = latest;
  temporary += ".tmp";
  files.write_file(temporary, step_name(step) + "\n");
  files.rename(temporary, latest);
  confirm(files, root, step);
}

/// The step after `prefix` in a name of our own, e.g. ".saving-step-000800".
std::optional<int64_t> step_after(const std::string& name, const std::string& prefix) {
  return name.starts_with(prefix) ? parse_step_name(name.substr(prefix.size())) : std::nullopt;
}

void recover_replaced(storage::FileSystem& files,
                      const fs::path& root,
                      const std::string& name,
                      int64_t step) {
  const auto target = root / step_name(step);
  if (files.is_directory(target) && !fault_of(files, root, step)) {
    files.remove_all(root / name);
    return;
  }
  core::log_warning("checkpoint " + target.string() +
                    ": a save that was to replace it did not finish; the earlier one is put back");
  files.remove_all(target);
  files.rename(root / name, target);
}

}  // namespace

std::string step_name(int64_t step) {
  std::array<char, 32> name;
  std::snprintf(name.data(), name.size(), "step-%06lld", static_cast<long long>(step));
  return name.data();
}

std::optional<int64_t> parse_step_name(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) {
    return std::nullopt;
  }
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  const bool fine = error == std::errc() && stop == end && step >= 0 && step_name(step) == name;
  return fine ? std::optional<int64_t>(step) : std::nullopt;
}

fs::path staging_folder(const fs::path& root, int64_t step) {
  return root / (kStaging + step_name(step));
}

void begin_save(storage::FileSystem& files, const fs::path& root, int64_t step) {
  const auto staging = staging_folder(root, step);
  files.remove_all(staging);
  files.make_directories(staging);
}

void abandon_save(storage::FileSystem& files, const fs::path& root, int64_t step) noexcept {
  try {
    files.remove_all(staging_folder(root, step));
  } catch (const std::exception&) {
    // The next start removes it; the save's own error is the one to report.
  }
}

void publish_save(storage::FileSystem& files, const fs::path& root, const Manifest& manifest) {
  const auto staging = staging_folder(root, manifest.step);
  const auto target = root / step_name(manifest.step);
  const auto replaced = root / (kReplaced + step_name(manifest.step));
  storage::write_file_atomic(files, staging / kManifest, to_text(manifest));
  const bool replaces = files.is_directory(target);
  if (replaces) {
    files.remove_all(replaced);
    files.rename(target, replaced);
  }
  try {
    files.rename(staging, target);
  } catch (...) {
    if (replaces) {
      try {
        files.rename(replaced, target);
      } catch (const std::exception&) {
        core::log_error("checkpoint " + target.string() + " is now at " + replaced.string() +
                        "; the next start puts it back");
      }
    }
    throw;
  }
  confirm(files, root, manifest.step);
  move_latest(files, root, manifest.step);
  if (replaces) {
    files.remove_all(replaced);
  }
}

void prune(storage::FileSystem& files, const fs::path& root, int64_t current, int64_t keep) {
  if (keep <= 0) {
    return;
  }
  if (const auto fault = fault_of(files, root, current)) {
    throw core::Error(
        core::ErrorKind::Io,
        {.where = kWhere,
         .what = "the checkpoint just saved cannot be read back, so older ones are kept",
         .got = *fault,
         .allowed = "",
         .hint = "looking at the disk"});
  }
  auto steps = complete_steps(files, root);
  std::erase_if(steps, [&](int64_t step) { return step > current; });
  const auto surplus = static_cast<int64_t>(steps.size()) - keep;
  for (int64_t i = 0; i < surplus; ++i) {
    try {
      remove_checkpoint(files, root, steps[static_cast<size_t>(i)]);
    } catch (const core::Error& error) {
      // The new checkpoint is safe; that an old one stays is no reason to stop a run.
      core::log_warning(std::string("an old checkpoint could not be removed: ") + error.what());
    }
  }
}

void remove_checkpoint(storage::FileSystem& files, const fs::path& root, int64_t step) {
  const auto going = root / (kRemoving + step_name(step));
  files.remove_all(going);
  files.rename(root / step_name(step), going);
  files.remove_all(going);
}

void recover(storage::FileSystem& files, const fs::path& root) {
  for (const auto& name : files.list(root)) {
    if (const auto step = step_after(name, kReplaced)) {
      recover_replaced(files, root, name, *step);
    } else if (step_after(name, kStaging)) {
      core::log_warning("removing what an interrupted save left: " + (root / name).string());
      files.remove_all(root / name);
    } else if (step_after(name, kRemoving) || name == std::string(kLatest) + ".tmp" ||
               name.starts_with(kLockLitter)) {
      files.remove_all(root / name);
    }
  }
}

std::string read_manifest_text(const storage::FileSystem& files,
                               const fs::path& root,
                               int64_t step) {
  const auto folder = root / step_name(step);
  if (!files.is_directory(folder)) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = kWhere,
                       .what = "there is no checkpoint '" + folder.string() + "'",
                       .got = "",
                       .allowed = "",
                       .hint = "kamerton inspect on the run's folder"});
  }
  return files.read_file(folder / kManifest, kMaxManifest);
}

Manifest read_manifest(const storage::FileSystem& files, const fs::path& root, int64_t step) {
  const auto origin = (root / step_name(step) / kManifest).string();
  auto manifest = parse_manifest(read_manifest_text(files, root, step), origin);
  if (manifest.step != step) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = kWhere,
                       .what = "'" + origin + "' belongs to another step",
                       .got = std::to_string(manifest.step),
                       .allowed = std::to_string(step),
                       .hint = "renaming the folder back"});
  }
  return manifest;
}

std::optional<std::string> fault_of(const storage::FileSystem& files,
                                    const fs::path& root,
                                    int64_t step) {
  try {
    const auto manifest = read_manifest(files, root, step);
    for (const auto& file : manifest.files) {
      const auto path = root / step_name(step) / file.name;
      const auto size = files.file_size(path);
      if (!size) {
        return "'" + path.string() + "' is missing";
      }
      if (*size != file.size) {
        return "'" + path.string() + "' has " + std::to_string(*size) + " bytes instead of " +
               std::to_string(file.size);
      }
    }
    return std::nullopt;
  } catch (const core::Error& error) {
    return error.what();
  }
}

std::vector<int64_t> complete_steps(const storage::FileSystem& files, const fs::path& root) {
  std::vector<int64_t> steps;
  for (const auto& name : files.list(root)) {
    const auto step = parse_step_name(name);
    if (step && !fault_of(files, root, *step)) {
      steps.push_back(*step);
    }
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<int64_t> latest_step(const storage::FileSystem& files, const fs::path& root) {
  std::optional<int64_t> named;
  if (files.file_size(root / kLatest)) {
    auto text = files.read_file(root / kLatest, 4096);
    if (!text.empty() && text.back() == '\n') {
      text.pop_back();
    }
    named = parse_step_name(text);
    const auto fault = named ? fault_of(files, root, *named)
                             : std::optional<std::string>("it holds '" + text.substr(0, 40) + "'");
    if (!fault) {
      return named;
    }
    core::log_warning("LATEST in " + root.string() +
                      " does not lead to a complete checkpoint: " + *fault);
  }
  std::vector<int64_t> steps;
  for (const auto& name : files.list(root)) {
    const auto step = parse_step_name(name);
    if (step && step != named) {
      steps.push_back(*step);
    }
  }
  std::sort(steps.rbegin(), steps.rend());
  for (const int64_t step : steps) {
    const auto fault = fault_of(files, root, step);
    if (!fault) {
      core::log_warning("FALLING BACK to " + (root / step_name(step)).string());
      return step;
    }
    core::log_warning("skipping " + step_name(step) + ", which is not complete: " + *fault);
  }
  return std::nullopt;
}

}  // namespace kamerton::checkpoint
