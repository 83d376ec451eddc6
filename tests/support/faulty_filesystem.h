// SPDX-License-Identifier: Apache-2.0
// The failing twin of the file system: the N-th change does not happen, and maybe all after it.
#pragma once

#include <string>

#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::test {

class FaultyFileSystem : public storage::FileSystem {
 public:
  /// Changes are counted from 0. forever: every change from then on fails, as after a kill.
  FaultyFileSystem(storage::FileSystem& real, int fail_at, bool forever)
      : real_(real), fail_at_(fail_at), forever_(forever) {}

  int num_changes() const { return num_changes_; }

  void write_file(const std::filesystem::path& path, std::string_view bytes) override {
    if (hit()) {
      // A write that fails has usually left a part behind.
      try {
        real_.write_file(path, bytes.substr(0, bytes.size() / 2));
      } catch (const core::Error&) {
      }
      fail(path);
    }
    real_.write_file(path, bytes);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    check(to);
    real_.rename(from, to);
  }
  void sync_directory(const std::filesystem::path& folder) override {
    check(folder);
    real_.sync_directory(folder);
  }
  void make_directories(const std::filesystem::path& folder) override {
    check(folder);
    real_.make_directories(folder);
  }
  void remove_all(const std::filesystem::path& path) override {
    check(path);
    real_.remove_all(path);
  }
  std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) const override {
    return real_.read_file(path, max_bytes);
  }
  std::vector<std::string> list(const std::filesystem::path& folder) const override {
    return real_.list(folder);
  }
  std::optional<uint64_t> file_size(const std::filesystem::path& path) const override {
    return real_.file_size(path);
  }
  bool is_directory(const std::filesystem::path& path) const override {
    return real_.is_directory(path);
  }
  uint64_t free_bytes(const std::filesystem::path& folder) const override {
    return real_.free_bytes(folder);
  }

 private:
  bool hit() {
    const int now = num_changes_++;
    return now == fail_at_ || (forever_ && now > fail_at_);
  }
  [[noreturn]] static void fail(const std::filesystem::path& path) {
    throw core::Error(core::ErrorKind::Io,
                      {.where = "test.faulty_filesystem",
                       .what = "planted failure on '" + path.string() + "'",
                       .got = "",
                       .allowed = "",
                       .hint = ""});
  }
  void check(const std::filesystem::path& path) {
    if (hit()) {
      fail(path);
    }
  }

  storage::FileSystem& real_;
  int fail_at_;
  bool forever_;
  int num_changes_ = 0;
};

}  // namespace kamerton::test
