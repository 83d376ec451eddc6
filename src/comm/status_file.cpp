// SPDX-License-Identifier: Apache-2.0
#include "status_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

constexpr int kLines = static_cast<int>(StatusField::kCount);
constexpr int kKey = 13;
constexpr size_t kBytes = static_cast<size_t>(kLines) * StatusFile::kLine;
constexpr std::array<std::string_view, kLines> kKeys = {
    "kamerton",
    "rank",
    "world",
    "host",
    "pid",
    "started",
    "phase",
    "step",
    "op",
    "group",
    "bytes",
    "seq",
    "inside",
    "heartbeat",
    "time",
    "checkpoint",
    "signal",
};

[[noreturn]] void refuse(const std::filesystem::path& path, int error) {
  throw core::Error(core::ErrorKind::Output,
                    {.where = "comm.status_file",
                     .what = "cannot make the status file " + path.string(),
                     .got = std::strerror(error)});
}

}  // namespace

std::filesystem::path status_path(const std::filesystem::path& folder, int rank) {
  return folder / fmt::format("rank-{}.status", rank);
}

StatusFile::StatusFile(const std::filesystem::path& folder, int rank) {
  const std::filesystem::path path = status_path(folder, rank);
  const int file = open(path.c_str(), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) {
    refuse(path, errno);
  }
  // Blocks are reserved now: a full disk is an answer here and a SIGBUS later.
  const int full = posix_fallocate(file, 0, static_cast<off_t>(kBytes));
  void* base =
      full == 0 ? mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  const int error = full != 0 ? full : errno;
  close(file);
  if (base == MAP_FAILED) {
    refuse(path, error);
  }
  text_ = static_cast<char*>(base);
  std::memset(text_, ' ', kBytes);
  for (int i = 0; i < kLines; ++i) {
    char* line = text_ + i * kLine;
    std::copy(kKeys[i].begin(), kKeys[i].end(), line);
    line[kLine - 1] = '\n';
    set(static_cast<StatusField>(i), "-");
  }
  set(StatusField::Version, "status-1");
  set(StatusField::Rank, rank);
}

StatusFile::~StatusFile() {
  munmap(text_, kBytes);
}

char* StatusFile::value(StatusField field) const {
  return text_ + static_cast<int>(field) * kLine + kKey;
}

void StatusFile::set(StatusField field, std::string_view text) {
  char* to = value(field);
  const size_t length = std::min<size_t>(text.size(), kValue);
  std::transform(text.begin(), text.begin() + static_cast<ptrdiff_t>(length), to, [](char c) {
    return c == '\n' ? ' ' : c;
  });
  std::memset(to + length, ' ', kValue - length);
}

void StatusFile::set(StatusField field, int64_t number) {
  char digits[24];
  const auto end = fmt::format_to(digits, "{}", number);
  set(field, std::string_view(digits, static_cast<size_t>(end - digits)));
}

std::string status_value(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const size_t key_end = line.find(' ');
    if (line.substr(0, key_end) == key && key_end != std::string_view::npos) {
      const size_t begin = line.find_first_not_of(' ', key_end);
      const size_t end = line.find_last_not_of(' ');
      return begin == std::string_view::npos ? ""
                                             : std::string(line.substr(begin, end - begin + 1));
    }
  }
  return "";
}

}  // namespace kamerton::comm
