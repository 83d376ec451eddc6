// SPDX-License-Identifier: Apache-2.0
#include "cache_file.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kCacheFileWhere[] = "data.cache";
constexpr size_t kKeyHex = 64;
constexpr size_t kNameHex = 32;
constexpr std::chrono::hours kUnusedFor{24 * 30};

struct Header {
  char magic[8] = {'K', 'M', 'T', 'N', 'T', 'A', 'B', '1'};
  uint64_t byte_order = 0x0102030405060708ULL;
  uint64_t payload_bytes = 0;
  CacheNumbers numbers = {};
  char key[kKeyHex] = {};
};
static_assert(sizeof(Header) == 120);

[[noreturn]] void cannot(const char* what, const std::filesystem::path& path, int code) {
  throw Error(code == ENOSPC || code == EIO || code == EDQUOT ? ErrorKind::Io : ErrorKind::Output,
              {.where = kCacheFileWhere,
               .what = fmt::format(
                   "{}: {}: {}", path.string(), what, std::generic_category().message(code)),
               .hint = "data.index_dir: a folder with room that may be written"});
}

/// A folder of this user alone, below the system's temporary one.
std::filesystem::path own_temporary_folder() {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("kamerton-index-{}", ::geteuid());
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    cannot("the folder cannot be made", folder, errno);
  }
  struct stat status {};
  if (::lstat(folder.c_str(), &status) != 0) {
    cannot("the folder cannot be looked at", folder, errno);
  }
  if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & 022) != 0) {
    throw Error(ErrorKind::Permission,
                {.where = kCacheFileWhere,
                 .what = folder.string() + ": others may write to this folder or own it",
                 .allowed = "a folder of this user alone",
                 .hint = "data.index_dir"});
  }
  return folder;
}

std::filesystem::path prepare_folder(const std::optional<std::string>& folder) {
  if (!folder) {
    return own_temporary_folder();
  }
  std::error_code code;
  std::filesystem::create_directories(*folder, code);
  if (code) {
    cannot("the folder cannot be made", *folder, code.value());
  }
  return *folder;
}

/// Held while one process builds. Where the file system has no locks, several may build the same.
class Lock {
 public:
  explicit Lock(const std::filesystem::path& path)
      : descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)) {
    if (descriptor_ < 0) {
      cannot("the lock cannot be made", path, errno);
    }
    while (::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~Lock() { ::close(descriptor_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int descriptor_;
};

bool is_ours(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return name.size() > kNameHex && name[kNameHex] == '.' &&
         std::all_of(name.begin(), name.begin() + kNameHex, [](unsigned char c) {
           return std::isdigit(c) != 0 || (c >= 'a' && c <= 'f');
         });
}

/// Tables that no run has opened for long go when another is made. Best effort: who still reads one
/// keeps it open.
void remove_unused(const std::filesystem::path& folder) {
  static std::mutex mutex;
  static std::map<std::filesystem::path, uint64_t> made;
  {
    const std::lock_guard lock(mutex);
    if (!std::has_single_bit(++made[folder])) {
      return;  // of many tables the 1st, 2nd, 4th, 8th look: the work stays linear
    }
  }
  std::error_code code;
  const auto oldest = std::filesystem::file_time_type::clock::now() - kUnusedFor;
  for (std::filesystem::directory_iterator at(folder, code), end; !code && at != end;
       at.increment(code)) {
    std::error_code ignored;
    if (is_ours(at->path()) && at->is_regular_file(ignored) &&
        at->last_write_time(ignored) < oldest && !ignored) {
      std::filesystem::remove(at->path(), ignored);
    }
  }
}

void note_use(const std::filesystem::path& path) {
  ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // of another user: it stays as old as it is
}

using Stream = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

void write_table(const std::filesystem::path& temporary,
                 const std::string& key_hex,
                 const std::function<CacheNumbers(CacheWriter&)>& build) {
  Stream stream(std::fopen(temporary.c_str(), "wbx"), &std::fclose);
  if (stream == nullptr) {
    cannot("the table cannot be made", temporary, errno);
  }
  Header header;
  key_hex.copy(header.key, kKeyHex);
  CacheWriter writer(temporary, stream.get());
  writer.append(std::as_bytes(std::span(&header, 1)));
  header.numbers = build(writer);
  header.payload_bytes = writer.written() - sizeof(header);
  if (std::fseek(stream.get(), 0, SEEK_SET) != 0) {
    cannot("the table cannot be written", temporary, errno);
  }
  writer.append(std::as_bytes(std::span(&header, 1)));
  if (std::fclose(stream.release()) != 0) {
    cannot("the table cannot be written", temporary, errno);
  }
  storage::sync_file(temporary);
}

}  // namespace

void CacheWriter::append(std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), stream_) != bytes.size()) {
    cannot("the table cannot be written", path_, errno);
  }
  written_ += bytes.size();
}

std::optional<CacheFile> CacheFile::try_open(const std::filesystem::path& path,
                                             const std::string& key_hex) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code)) {
    return std::nullopt;
  }
  CacheFile result;
  result.file_ = storage::MappedFile::open(path, true);
  result.file_.keep_mapping_only();
  Header header;
  const Header expected;
  if (result.file_.size() < sizeof(Header)) {
    return std::nullopt;
  }
  std::memcpy(&header, result.file_.bytes().data(), sizeof(header));
  if (std::memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0 ||
      header.byte_order != expected.byte_order ||
      std::string_view(header.key, kKeyHex) != key_hex ||
      header.payload_bytes != result.file_.size() - sizeof(Header)) {
    return std::nullopt;
  }
  result.numbers_ = header.numbers;
  return result;
}

CacheFile CacheFile::open_or_build(const std::optional<std::string>& folder,
                                   const std::string& key,
                                   const std::string& suffix,
                                   const std::function<CacheNumbers(CacheWriter&)>& build) {
  const std::string key_hex = storage::to_hex(storage::digest_of(std::string_view(key)));
  const std::filesystem::path base = prepare_folder(folder) / key_hex.substr(0, kNameHex);
  const std::filesystem::path path = base.string() + "." + suffix;
  if (auto ready = try_open(path, key_hex)) {
    note_use(path);
    return std::move(*ready);
  }
  const Lock lock(base.string() + ".lock");
  if (auto ready = try_open(path, key_hex)) {  // another process was quicker
    return std::move(*ready);
  }
  remove_unused(base.parent_path());
  const std::filesystem::path temporary = fmt::format("{}.{}.part", path.string(), ::getpid());
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);
  try {
    write_table(temporary, key_hex, build);
    std::filesystem::rename(temporary, path);
  } catch (...) {
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  if (auto ready = try_open(path, key_hex)) {
    return std::move(*ready);
  }
  throw Error(ErrorKind::Io,
              {.where = kCacheFileWhere,
               .what = path.string() + ": the table just written cannot be read back",
               .hint = "data.index_dir: a folder on another disk"});
}

uint64_t CacheFile::payload_start() {
  return sizeof(Header);
}

std::span<const std::byte> CacheFile::payload() const {
  return file_.bytes().subspan(sizeof(Header));
}

}  // namespace kamerton::data
