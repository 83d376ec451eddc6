// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/journal.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::federation {
namespace {

using core::Error;
using core::ErrorKind;

constexpr uint64_t kJournalMostBytes = uint64_t{4} << 30;
constexpr size_t kJournalDigits = 32;

std::string chain(const std::string& before, std::string_view text) {
  storage::Hasher hasher;
  hasher.update(before);
  hasher.update(text);
  return storage::to_hex(hasher.finish()).substr(0, kJournalDigits);
}

[[noreturn]] void fail(const std::filesystem::path& path) {
  throw Error(ErrorKind::Io,
              {.where = "federation.journal",
               .what = "cannot write '" + path.string() + "'",
               .got = std::strerror(errno)});
}

}  // namespace

Journal::Journal(const std::filesystem::path& path) : path_(path) {
  std::string text;
  if (std::filesystem::exists(path)) {
    text = storage::posix_filesystem().read_file(path, kJournalMostBytes);
  }
  size_t good = 0;
  for (size_t line = 1; good < text.size(); ++line) {
    const size_t end = text.find('\n', good);
    if (end == std::string::npos) {
      break;  // the write that a crash cut off: nobody was told
    }
    const std::string_view content(text.data() + good, end - good);
    const std::string digest(content.substr(0, kJournalDigits));
    const std::string_view event =
        content.size() > kJournalDigits ? content.substr(kJournalDigits + 1) : std::string_view();
    if (digest != chain(last_digest_, event)) {
      throw Error(ErrorKind::Data,
                  {.where = "federation.journal",
                   .what = fmt::format("'{}' is damaged in line {}", path.string(), line),
                   .hint = "restore it from a copy; the run cannot go on from a guess"});
    }
    past_.push_back(core::parse_json(event, path.string()));
    last_digest_ = digest;
    good = end + 1;
  }
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor_ < 0 || ::ftruncate(descriptor_, static_cast<off_t>(good)) != 0 ||
      ::lseek(descriptor_, 0, SEEK_END) < 0 || ::fsync(descriptor_) != 0) {
    fail(path);
  }
  storage::posix_filesystem().sync_directory(path.parent_path());
}

Journal::~Journal() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

void Journal::append(const core::Json& event) {
  const std::string text = event.dump();
  const std::string digest = chain(last_digest_, text);
  const std::string line = digest + " " + text + "\n";
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t count = ::write(descriptor_, line.data() + done, line.size() - done);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      fail(path_);
    }
    done += static_cast<size_t>(count);
  }
  if (::fsync(descriptor_) != 0) {
    fail(path_);
  }
  last_digest_ = digest;
}

}  // namespace kamerton::federation
