// SPDX-License-Identifier: Apache-2.0
// The in-memory twin of the file system.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>

#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::test {

class MemoryFileSystem : public storage::FileSystem {
 public:
  explicit MemoryFileSystem(uint64_t capacity = uint64_t{1} << 40) : capacity_(capacity) {}

  void write_file(const std::filesystem::path& path, std::string_view bytes) override {
    const std::lock_guard lock(mutex_);
    if (!is_folder(path.parent_path())) {
      fail(core::ErrorKind::Output, "cannot create", path);
    }
    uint64_t used = bytes.size();
    for (const auto& [name, text] : files_) {
      used += name == path.string() ? 0 : text.size();
    }
    if (used > capacity_) {
      fail(core::ErrorKind::Io, "no space to write", path);
    }
    files_[path.string()] = bytes;
  }

  std::string read_file(const std::filesystem::path& path, uint64_t max_bytes) const override {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(path.string());
    if (found == files_.end() || found->second.size() > max_bytes) {
      fail(core::ErrorKind::Data, "there is no file", path);
    }
    return found->second;
  }

  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    const std::lock_guard lock(mutex_);
    if (const auto file = files_.find(from.string()); file != files_.end()) {
      auto text = std::move(file->second);
      files_.erase(file);
      files_[to.string()] = std::move(text);
      return;
    }
    if (folders_.count(from.string()) == 0 || has_children(to)) {
      fail(core::ErrorKind::Output, "cannot create", to);
    }
    move_below(from.string(), to.string());
  }

  void sync_directory(const std::filesystem::path& folder) override {
    const std::lock_guard lock(mutex_);
    if (!is_folder(folder)) {
      fail(core::ErrorKind::Output, "cannot create", folder);
    }
  }

  void make_directories(const std::filesystem::path& folder) override {
    const std::lock_guard lock(mutex_);
    for (auto path = folder; path.has_relative_path(); path = path.parent_path()) {
      if (files_.count(path.string()) != 0) {
        fail(core::ErrorKind::Output, "cannot create", folder);
      }
      folders_.insert(path.string());
    }
  }

  void remove_all(const std::filesystem::path& path) override {
    const std::lock_guard lock(mutex_);
    std::erase_if(files_, [&](const auto& item) { return is_below(item.first, path.string()); });
    std::erase_if(folders_, [&](const auto& item) { return is_below(item, path.string()); });
  }

  std::vector<std::string> list(const std::filesystem::path& folder) const override {
    const std::lock_guard lock(mutex_);
    std::set<std::string> names;
    const auto add = [&](const std::filesystem::path& path) {
      if (path.parent_path() == folder) {
        names.insert(path.filename().string());
      }
    };
    for (const auto& [name, text] : files_) {
      add(name);
    }
    for (const auto& name : folders_) {
      add(name);
    }
    return {names.begin(), names.end()};
  }

  std::optional<uint64_t> file_size(const std::filesystem::path& path) const override {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(path.string());
    return found == files_.end() ? std::nullopt : std::optional<uint64_t>(found->second.size());
  }

  bool is_directory(const std::filesystem::path& path) const override {
    const std::lock_guard lock(mutex_);
    return is_folder(path);
  }

  uint64_t free_bytes(const std::filesystem::path&) const override {
    const std::lock_guard lock(mutex_);
    uint64_t used = 0;
    for (const auto& [name, text] : files_) {
      used += text.size();
    }
    return capacity_ - used;
  }

 private:
  [[noreturn]] static void fail(core::ErrorKind kind,
                                const std::string& what,
                                const std::filesystem::path& path) {
    throw core::Error(kind,
                      {.where = "test.memory_filesystem",
                       .what = what + " '" + path.string() + "'",
                       .got = "",
                       .allowed = "",
                       .hint = ""});
  }
  static bool is_below(const std::string& name, const std::string& folder) {
    return name == folder || name.starts_with(folder + "/");
  }
  bool is_folder(const std::filesystem::path& path) const {
    return path == "/" || folders_.count(path.string()) != 0;
  }
  bool has_children(const std::filesystem::path& path) const {
    for (const auto& [name, text] : files_) {
      if (name.starts_with(path.string() + "/")) {
        return true;
      }
    }
    return false;
  }
  void move_below(const std::string& from, const std::string& to) {
    std::map<std::string, std::string> files;
    for (auto& [name, text] : files_) {
      files[is_below(name, from) ? to + name.substr(from.size()) : name] = std::move(text);
    }
    files_ = std::move(files);
    std::set<std::string> folders;
    for (const auto& name : folders_) {
      folders.insert(is_below(name, from) ? to + name.substr(from.size()) : name);
    }
    folders_ = std::move(folders);
  }

  uint64_t capacity_;
  mutable std::mutex mutex_;
  std::map<std::string, std::string> files_;
  std::set<std::string> folders_;
};

}  // namespace kamerton::test
