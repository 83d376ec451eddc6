// SPDX-License-Identifier: Apache-2.0
// Saved training states: one file a rank, published whole or not at all, loadable on any number of
// ranks. Bytes on disk: src/checkpoint/FORMAT.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/checkpoint/slice.h"
#include "kamerton/comm/group.h"
#include "kamerton/core/json.h"
#include "kamerton/storage/dtype.h"

namespace kamerton::checkpoint {

struct StoreOptions {
  int64_t keep = 2;         ///< newest checkpoints that stay on disk; 0: all
  bool write_index = true;  ///< index.h5: whole tensors for h5py; rank 0 writes it
  bool read_only = false;   ///< takes no lock, creates and removes nothing; save() is an error
  /// A name that survives a restart on another host (a SLURM job id); "" when there is none.
  std::string owner = {};
  std::string program_version = {};
  int io_threads = 2;     ///< threads a rank for digests
  int64_t lease_s = 900;  ///< a lock from another host, not renewed for so long, is taken over
};

/// What one save did, the same on every rank.
struct SaveReport {
  int64_t step = 0;
  std::filesystem::path folder;
  int64_t bytes = 0;      ///< all files of all ranks
  double seconds = 0.0;   ///< from call to return, slowest rank
  double write_s = 0.0;   ///< of these: writing and closing files, slowest rank
  double digest_s = 0.0;  ///< of these: fsync and digest, which overlap, slowest rank
};

struct TensorInfo {
  std::string name;
  storage::DType dtype = storage::DType::F32;
  std::vector<int64_t> shape;
};

/// What the manifest says.
struct Contents {
  int64_t step = 0;
  std::string program_version = {};
  int world_size = 0;  ///< of the run that saved
  int64_t bytes = 0;   ///< of all files
  std::vector<std::string> files;
  std::vector<TensorInfo> tensors;  ///< ordered by name
};

/// The checkpoints of one run: <folder>/step-000800/ and <folder>/LATEST. Member functions are
/// collective over the group (all ranks, same order) unless said otherwise. No rank ever holds more
/// than its own slices.
///
/// Errors reach every rank: when one rank fails, all throw the first failure's text. Io: disk full
/// (bytes needed and free), failing device, wrong digest. Output: the folder cannot be made or
/// written. Data: a checkpoint that is not complete, or is not what the caller expects. After a
/// failed save the earlier checkpoints are untouched. When only the very last flush to disk fails,
/// the text says "outcome unknown": the new checkpoint is visible and older ones are kept.
class Store {
 public:
  /// Makes the folder, takes its lock, removes what an interrupted save left (unless read_only).
  /// Output when the folder cannot be made or another run that is alive holds it.
  Store(const std::filesystem::path& folder, const comm::Group& group, StoreOptions options = {});
  /// Releases the lock; not collective.
  ~Store();
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;

  /// Writes and publishes step-<step>, moves LATEST, removes checkpoints beyond `keep`. Over all
  /// ranks the slices must cover every element of every tensor exactly once (Internal names the
  /// tensor otherwise); a rank may bring none. `extra` (rank 0's) is whatever JSON the caller wants
  /// back. `trainer_state`: text of trainer_state.json, "" for none. A step that exists already is
  /// replaced.
  SaveReport save(int64_t step,
                  const std::vector<Slice>& slices,
                  const core::Json& extra,
                  const std::string& trainer_state = "");

  /// Complete checkpoints, oldest first: those with a manifest whose files are there with the right
  /// sizes.
  std::vector<int64_t> list() const;
  /// The step that LATEST names; when that one is not complete, a warning and the newest complete
  /// one. nullopt: none.
  std::optional<int64_t> latest() const;

  Contents contents(int64_t step) const;
  core::Json read_extra(int64_t step) const;

  /// Fills the slices, any ranges of the tensors, on any number of ranks. Data when a slice's
  /// tensor is missing, or has another dtype or shape, and when the checkpoint has tensors that no
  /// rank asked for. Each rank checks size and digest of every file it reads, once for this Store,
  /// before HDF5 sees it.
  void load(int64_t step, const std::vector<Slice>& slices) const;
  /// As load, but other tensors may stay unread (export, inspection).
  void read(int64_t step, const std::vector<Slice>& slices) const;

  /// Reads every file and compares its digest, files shared out over the ranks. Io naming the first
  /// bad file.
  void verify(int64_t step) const;

  /// Throws Io (needed and free bytes) when the folder's file system has no room for `local_bytes`
  /// of every rank, and some more. save() asks too; a run asks before its first step.
  void require_space(int64_t local_bytes) const;

  /// Removes one checkpoint. Not used by save()'s own policy.
  void remove(int64_t step);

  const std::filesystem::path& folder() const;

  /// "step-000800"
  static std::string folder_name(int64_t step);
  /// 800 for "step-000800"; nullopt for other names.
  static std::optional<int64_t> step_of(const std::string& folder_name);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::checkpoint
