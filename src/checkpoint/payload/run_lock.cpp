// SPDX-License-Identifier: Apache-2.0
#include "payload/run_lock.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <ctime>
#include <optional>
#include <sstream>
#include <system_error>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/json.h"
#include "kamerton/core/log.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr char kWhere[] = "checkpoint.run_lock";
constexpr uint64_t kMaxBytes = 64 << 10;
constexpr int kAttempts = 5;

/// Files of /proc have no size, so they are read to their end.
std::string proc_text(const fs::path& path) {
  std::string text;
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return text;
  }
  std::array<char, 4096> buffer;
  for (ssize_t got = ::read(file, buffer.data(), buffer.size()); got > 0;
       got = ::read(file, buffer.data(), buffer.size())) {
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  ::close(file);
  while (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  return text;
}

/// When a process started, in clock ticks after boot: tells it from a later one with the same pid.
/// "" when it is gone.
std::string start_time(int64_t pid) {
  const auto text = proc_text("/proc/" + std::to_string(pid) + "/stat");
  const auto name_end = text.rfind(')');
  if (name_end == std::string::npos) {
    return "";
  }
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int i = 0; i < 20; ++i) {  // field 22 of the line, the 20th after the name
    fields >> field;
  }
  return field;
}

std::string host_name() {
  std::array<char, 256> name = {};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

std::string boot_id() {
  return proc_text("/proc/sys/kernel/random/boot_id");
}

struct Holder {
  int64_t pid = 0;
  std::string started;
  std::string host;
  std::string boot;
  std::string owner;
};

std::optional<Holder> parse_holder(const std::string& text, const std::string& origin) {
  try {
    const auto json = core::parse_json(text, origin);
    return Holder{core::json_int(json, "pid", origin),
                  core::json_string(json, "started", origin),
                  core::json_string(json, "host", origin),
                  core::json_string(json, "boot_id", origin),
                  core::json_string(json, "owner", origin)};
  } catch (const core::Error&) {
    return std::nullopt;
  }
}

int64_t age_s(const fs::path& path) {
  struct stat status = {};
  return ::stat(path.c_str(), &status) == 0
             ? static_cast<int64_t>(std::time(nullptr) - status.st_mtim.tv_sec)
             : 0;
}

/// Why the holder cannot be there any more; "" when it may be.
std::string why_gone(const std::optional<Holder>& holder,
                     const fs::path& path,
                     const std::string& owner,
                     int64_t lease_s) {
  if (!holder) {
    return "it cannot be read";
  }
  if (holder->host == host_name()) {
    if (holder->boot != boot_id()) {
      return "this host was started again since";
    }
    return start_time(holder->pid) == holder->started
               ? ""
               : "process " + std::to_string(holder->pid) + " is gone";
  }
  if (!owner.empty() && holder->owner == owner) {
    return "it belongs to this job (" + owner + "), which ran on " + holder->host + " before";
  }
  const int64_t age = age_s(path);
  return age > lease_s
             ? "host " + holder->host + " has not renewed it for " + std::to_string(age) + " s"
             : "";
}

std::string lock_text(const std::string& owner) {
  static std::atomic<int> counter = 0;  // tells two stores of one process apart
  core::Json json;
  json["pid"] = ::getpid();
  json["started"] = start_time(::getpid());
  json["host"] = host_name();
  json["boot_id"] = boot_id();
  json["owner"] = owner;
  json["number"] = counter++;
  return json.dump() + "\n";
}

std::optional<std::string> read_lock(const fs::path& path) {
  auto& files = storage::posix_filesystem();
  try {
    return files.file_size(path) ? std::optional<std::string>(files.read_file(path, kMaxBytes))
                                 : std::nullopt;
  } catch (const core::Error&) {
    return std::nullopt;  // gone between two looks, or unreadable: the next attempt decides
  }
}

/// Makes the lock with its text in one step: a link to a finished file fails when the name exists.
bool create_lock(const fs::path& path, const std::string& text) {
  auto temporary = path;
  temporary += "." + std::to_string(::getpid()) + ".tmp";
  storage::posix_filesystem().write_file(temporary, text);
  const int result = ::link(temporary.c_str(), path.c_str());
  const int error = errno;
  ::unlink(temporary.c_str());
  // ENOENT: the holder has just cleaned up and taken our file for litter.
  if (result != 0 && error != EEXIST && error != ENOENT) {
    throw core::Error(core::ErrorKind::Output,
                      {.where = kWhere,
                       .what = "cannot make the lock '" + path.string() + "'",
                       .got = std::generic_category().message(error),
                       .allowed = "",
                       .hint = "another folder"});
  }
  return result == 0;
}

/// Moves a stale lock away, unless it has changed since it was judged: then another run was
/// quicker.
void discard_lock(const fs::path& path, const std::string& judged) {
  auto aside = path;
  aside += "." + std::to_string(::getpid()) + ".stale";
  if (::rename(path.c_str(), aside.c_str()) != 0) {
    return;
  }
  if (read_lock(aside) != judged) {
    ::link(aside.c_str(), path.c_str());
  }
  ::unlink(aside.c_str());
}

}  // namespace

RunLock::RunLock(const fs::path& root, const std::string& owner, int64_t lease_s)
    : path_(root / ".lock"), text_(lock_text(owner)) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (create_lock(path_, text_)) {
      return;
    }
    const auto text = read_lock(path_);
    if (!text) {
      continue;
    }
    const auto holder = parse_holder(*text, path_.string());
    const auto reason = why_gone(holder, path_, owner, lease_s);
    if (reason.empty()) {
      throw core::Error(
          core::ErrorKind::Output,
          {.where = kWhere,
           .what = "another run writes its checkpoints to '" + root.string() + "'",
           .got = "process " + std::to_string(holder->pid) + " on host " + holder->host,
           .allowed = "one run a folder",
           .hint = "another run name, or stopping that run; if it is surely gone, removing '" +
                   path_.string() + "'"});
    }
    core::log_warning("taking over the lock " + path_.string() + ": " + reason);
    discard_lock(path_, *text);
  }
  throw core::Error(core::ErrorKind::Output,
                    {.where = kWhere,
                     .what = "the lock '" + path_.string() + "' keeps changing hands",
                     .got = "",
                     .allowed = "one run a folder",
                     .hint = "another run name"});
}

RunLock::~RunLock() {
  if (read_lock(path_) == text_) {
    ::unlink(path_.c_str());
  }
}

void RunLock::renew() {
  if (read_lock(path_) != text_) {
    throw core::Error(core::ErrorKind::Output,
                      {.where = kWhere,
                       .what = "another run has taken over the lock '" + path_.string() + "'",
                       .got = "",
                       .allowed = "one run a folder",
                       .hint = "stopping one of the two runs"});
  }
  ::utimensat(AT_FDCWD, path_.c_str(), nullptr, 0);
}

}  // namespace kamerton::checkpoint
