// SPDX-License-Identifier: Apache-2.0
#include "kamerton/checkpoint/store.h"

#include <iterator>
#include <set>
#include <sstream>

#include <ATen/ATen.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/clock.h"
#include "kamerton/core/error.h"
#include "kamerton/core/format.h"

#include "payload/commit.h"
#include "payload/index_file.h"
#include "payload/rank_file.h"
#include "payload/run_lock.h"
#include "together.h"

namespace kamerton::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr char kWhere[] = "checkpoint.store";
constexpr char kIndexName[] = "index.h5";
constexpr char kTrainerState[] = "trainer_state.json";
/// Metadata, manifest, index; and what a file system keeps for itself.
constexpr int64_t kSpaceMargin = int64_t{16} << 20;

}  // namespace

struct Store::State {
  fs::path folder;
  comm::Group group;
  StoreOptions options;
  std::unique_ptr<RunLock> lock;  ///< rank 0

  // What was read last: a resume asks for the same manifest several times.
  mutable std::optional<int64_t> cached_step;
  mutable Manifest cached;
  mutable std::set<std::string> checked;  ///< files of cached_step whose digest matched

  storage::FileSystem& files() const { return storage::posix_filesystem(); }
  bool leads() const { return group.rank() == 0; }
  fs::path step_folder(int64_t step) const { return folder / step_name(step); }

  void require_writable() const;
  void check_space(int64_t needed) const;
  const Manifest& manifest(int64_t step) const;
  RankPart write_files(int64_t step, const std::vector<Slice>& slices, WriteTimes& times) const;
  Manifest publish(int64_t step,
                   const std::vector<std::string>& parts,
                   const core::Json& extra,
                   const std::string& trainer_state) const;
  void check_request(const Manifest& known, const std::vector<Slice>& slices) const;
  void check_all_asked(const Manifest& known, const std::vector<Slice>& slices) const;
  void read(int64_t step, const std::vector<Slice>& slices, bool strict) const;
};

void Store::State::require_writable() const {
  if (options.read_only) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kWhere,
                       .what = "'" + folder.string() + "' was opened for reading",
                       .got = "a change",
                       .allowed = "",
                       .hint = ""});
  }
}

void Store::State::check_space(int64_t needed) const {
  const auto free = files().free_bytes(folder);
  const auto wanted = static_cast<uint64_t>(needed + kSpaceMargin);
  if (free < wanted) {
    throw core::Error(
        core::ErrorKind::Io,
        {.where = kWhere,
         .what = "not enough space for a checkpoint in '" + folder.string() + "'",
         .got = core::format_bytes(free) + " free",
         .allowed = core::format_bytes(wanted) + " needed",
         .hint = "freeing space, keeping fewer checkpoints, or another output folder"});
  }
}

const Manifest& Store::State::manifest(int64_t step) const {
  if (cached_step == step) {
    return cached;
  }
  std::string text;
  together(group, [&] {
    if (leads()) {
      text = read_manifest_text(files(), folder, step);
    }
  });
  text = group.broadcast(text, 0);
  Manifest parsed;
  together(group,
           [&] { parsed = parse_manifest(text, (step_folder(step) / "manifest.json").string()); });
  cached = std::move(parsed);
  cached_step = step;
  checked.clear();
  return cached;
}

/// Every rank its file, or none of them: after a failure the staging folder is gone and all ranks
/// throw.
RankPart Store::State::write_files(int64_t step,
                                   const std::vector<Slice>& slices,
                                   WriteTimes& times) const {
  RankPart part;
  try {
    together(group, [&] {
      if (leads()) {
        begin_save(files(), folder, step);
      }
    });
    together(group, [&] {
      part = write_rank_file(staging_folder(folder, step),
                             {step, group.rank(), group.size()},
                             slices,
                             options.io_threads,
                             times);
    });
  } catch (const core::Error&) {
    if (leads()) {
      abandon_save(files(), folder, step);
    }
    throw;
  }
  return part;
}

Manifest Store::State::publish(int64_t step,
                               const std::vector<std::string>& parts,
                               const core::Json& extra,
                               const std::string& trainer_state) const {
  std::vector<RankPart> ranks;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    ranks.push_back(parse_rank_part(parts[rank], "rank " + std::to_string(rank)));
  }
  auto result = assemble(std::move(ranks));
  result.step = step;
  result.program_version = options.program_version;
  result.extra = extra;
  const auto staging = staging_folder(folder, step);
  if (options.write_index) {
    write_index(staging / kIndexName, result);
    result.files.push_back(seal_file(staging / kIndexName, 1));
  }
  if (!trainer_state.empty()) {
    files().write_file(staging / kTrainerState, trainer_state);
    result.files.push_back(seal_file(staging / kTrainerState, 1));
  }
  lock->renew();
  publish_save(files(), folder, result);
  prune(files(), folder, step, options.keep);
  return result;
}

Store::Store(const fs::path& folder, const comm::Group& group, StoreOptions options)
    : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->group = group;
  state_->options = std::move(options);
  together(group, [&] {
    if (!state_->leads() || state_->options.read_only) {
      return;
    }
    state_->files().make_directories(folder);
    state_->lock =
        std::make_unique<RunLock>(folder, state_->options.owner, state_->options.lease_s);
    recover(state_->files(), folder);
  });
}

Store::~Store() = default;
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;

SaveReport Store::save(int64_t step,
                       const std::vector<Slice>& slices,
                       const core::Json& extra,
                       const std::string& trainer_state) {
  const core::SteadyClock clock;
  const double start = clock.now_s();
  auto& state = *state_;
  together(state.group, [&] {
    state.require_writable();
    check_slices(slices, true);
  });
  require_space(total_bytes(slices));
  state.cached_step.reset();

  WriteTimes times;
  const auto part = state.write_files(step, slices, times);
  const auto parts = state.group.all_gather(std::string_view(to_text(part)));
  int64_t bytes = 0;
  try {
    together(state.group, [&] {
      if (state.leads()) {
        for (const auto& file : state.publish(step, parts, extra, trainer_state).files) {
          bytes += static_cast<int64_t>(file.size);
        }
      }
    });
  } catch (const core::Error&) {
    if (state.leads()) {
      abandon_save(state.files(), state.folder, step);
    }
    throw;
  }
  SaveReport report;
  report.step = step;
  report.folder = state.step_folder(step);
  report.bytes = state.group.max(bytes);
  report.write_s = state.group.max(times.write_s);
  report.digest_s = state.group.max(times.digest_s);
  report.seconds = state.group.max(clock.now_s() - start);
  return report;
}

std::vector<int64_t> Store::list() const {
  std::vector<int64_t> steps;
  together(state_->group, [&] {
    if (state_->leads()) {
      steps = complete_steps(state_->files(), state_->folder);
    }
  });
  std::string text;
  for (const int64_t step : steps) {
    text += std::to_string(step) + " ";
  }
  std::istringstream fields(state_->group.broadcast(text, 0));
  return {std::istream_iterator<int64_t>(fields), {}};
}

std::optional<int64_t> Store::latest() const {
  std::optional<int64_t> step;
  together(state_->group, [&] {
    if (state_->leads()) {
      step = latest_step(state_->files(), state_->folder);
    }
  });
  const int64_t found = state_->group.max(step.value_or(-1));
  return found < 0 ? std::nullopt : std::optional<int64_t>(found);
}

Contents Store::contents(int64_t step) const {
  const auto& manifest = state_->manifest(step);
  Contents contents;
  contents.step = manifest.step;
  contents.program_version = manifest.program_version;
  contents.world_size = manifest.world_size;
  for (const auto& file : manifest.files) {
    contents.bytes += static_cast<int64_t>(file.size);
    contents.files.push_back(file.name);
  }
  for (const auto& tensor : manifest.tensors) {
    contents.tensors.push_back({tensor.name, tensor.dtype, tensor.shape});
  }
  return contents;
}

core::Json Store::read_extra(int64_t step) const {
  return state_->manifest(step).extra;
}

void Store::State::check_request(const Manifest& known, const std::vector<Slice>& slices) const {
  const auto refuse = [&](const Slice& slice,
                          const std::string& what,
                          const std::string& got,
                          const std::string& allowed) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = kWhere,
                       .what = "checkpoint '" + step_folder(known.step).string() + "' " + what +
                               " '" + slice.name + "'",
                       .got = got,
                       .allowed = allowed,
                       .hint = "a checkpoint of the same model and method"});
  };
  check_slices(slices, false);
  for (const auto& slice : slices) {
    const auto* tensor = known.find(slice.name);
    if (tensor == nullptr) {
      refuse(slice, "lacks tensor", std::to_string(known.tensors.size()) + " other tensors", "");
    } else if (tensor->dtype != slice.dtype) {
      refuse(slice,
             "has another dtype for tensor",
             std::string(name_of(tensor->dtype)),
             std::string(name_of(slice.dtype)));
    } else if (tensor->shape != slice.shape) {
      refuse(slice,
             "has another shape for tensor",
             core::Json(tensor->shape).dump(),
             core::Json(slice.shape).dump());
    }
  }
}

/// A tensor that nobody wants is state that would be lost without a word.
void Store::State::check_all_asked(const Manifest& known, const std::vector<Slice>& slices) const {
  auto asked = at::zeros({static_cast<int64_t>(known.tensors.size())}, at::kByte);
  auto* flags = asked.data_ptr<uint8_t>();
  for (const auto& slice : slices) {
    flags[known.find(slice.name) - known.tensors.data()] = 1;
  }
  group.all_reduce(asked, comm::Reduce::Max);
  for (size_t i = 0; i < known.tensors.size(); ++i) {
    if (flags[i] == 0) {
      throw core::Error(core::ErrorKind::Data,
                        {.where = kWhere,
                         .what = "checkpoint '" + step_folder(known.step).string() +
                                 "' has a tensor that this run does not know",
                         .got = "'" + known.tensors[i].name + "'",
                         .allowed = "",
                         .hint = "a checkpoint of the same model and method"});
    }
  }
}

void Store::State::read(int64_t step, const std::vector<Slice>& slices, bool strict) const {
  const auto& known = manifest(step);
  together(group, [&] { check_request(known, slices); });
  if (strict) {
    check_all_asked(known, slices);
  }
  together(group,
           [&] { read_slices(step_folder(step), known, slices, options.io_threads, checked); });
}

void Store::load(int64_t step, const std::vector<Slice>& slices) const {
  state_->read(step, slices, true);
}

void Store::read(int64_t step, const std::vector<Slice>& slices) const {
  state_->read(step, slices, false);
}

void Store::verify(int64_t step) const {
  const auto& manifest = state_->manifest(step);
  together(state_->group, [&] {
    for (size_t i = static_cast<size_t>(state_->group.rank()); i < manifest.files.size();
         i += static_cast<size_t>(state_->group.size())) {
      check_file(state_->step_folder(step), manifest.files[i], state_->options.io_threads);
    }
  });
}

void Store::require_space(int64_t local_bytes) const {
  const int64_t needed = state_->group.sum(local_bytes);
  together(state_->group, [&] {
    if (state_->leads()) {
      state_->check_space(needed);
    }
  });
}

void Store::remove(int64_t step) {
  together(state_->group, [&] {
    state_->require_writable();
    if (state_->leads()) {
      remove_checkpoint(state_->files(), state_->folder, step);
    }
  });
  state_->cached_step.reset();
}

const fs::path& Store::folder() const {
  return state_->folder;
}

std::string Store::folder_name(int64_t step) {
  return step_name(step);
}

std::optional<int64_t> Store::step_of(const std::string& folder_name) {
  return parse_step_name(folder_name);
}

}  // namespace kamerton::checkpoint
