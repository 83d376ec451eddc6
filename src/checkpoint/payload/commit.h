// SPDX-License-Identifier: Apache-2.0
// How a checkpoint comes to be visible, and how what an interrupted save left is cleaned up. One
// process (rank 0) only.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kamerton/storage/filesystem.h"

#include "payload/manifest.h"

namespace kamerton::checkpoint {

/// "step-000800"; nullopt for names that are none.
std::string step_name(int64_t step);
std::optional<int64_t> parse_step_name(const std::string& name);

/// The folder in which a save collects its files until it is published.
std::filesystem::path staging_folder(const std::filesystem::path& root, int64_t step);

/// Makes a fresh staging folder.
void begin_save(storage::FileSystem& files, const std::filesystem::path& root, int64_t step);

/// Removes the staging folder of a save that failed; never throws.
void abandon_save(storage::FileSystem& files,
                  const std::filesystem::path& root,
                  int64_t step) noexcept;

/// The manifest into the staging folder, the folder to its name, LATEST to it. An existing
/// checkpoint of this step is moved aside first and removed at the end. Throws Io "outcome unknown
/// ..." when the checkpoint is visible but the flush after it failed; other errors mean that it is
/// not published, or not named by LATEST.
void publish_save(storage::FileSystem& files,
                  const std::filesystem::path& root,
                  const Manifest& manifest);

/// Removes all but the newest `keep` complete checkpoints up to `current` (0: none). `current`
/// stays, and must be complete, else nothing is removed. Newer steps than `current` are of another
/// history and stay too.
void prune(storage::FileSystem& files,
           const std::filesystem::path& root,
           int64_t current,
           int64_t keep);

/// Removes one checkpoint: out of sight by a rename first.
void remove_checkpoint(storage::FileSystem& files, const std::filesystem::path& root, int64_t step);

/// Finishes or undoes what an interrupted save or removal left behind; a warning for each.
void recover(storage::FileSystem& files, const std::filesystem::path& root);

/// Data when there is no such checkpoint or its manifest is bad.
Manifest read_manifest(const storage::FileSystem& files,
                       const std::filesystem::path& root,
                       int64_t step);
std::string read_manifest_text(const storage::FileSystem& files,
                               const std::filesystem::path& root,
                               int64_t step);

/// nullopt when the checkpoint is complete (a good manifest, every file there with its size), else
/// why it is not.
std::optional<std::string> fault_of(const storage::FileSystem& files,
                                    const std::filesystem::path& root,
                                    int64_t step);

/// Complete checkpoints, oldest first.
std::vector<int64_t> complete_steps(const storage::FileSystem& files,
                                    const std::filesystem::path& root);

/// What LATEST names when that is complete; else, with warnings, the newest complete one; nullopt
/// when there is none.
std::optional<int64_t> latest_step(const storage::FileSystem& files,
                                   const std::filesystem::path& root);

}  // namespace kamerton::checkpoint
