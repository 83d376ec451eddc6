// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/prepare.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <exception>
#include <system_error>
#include <thread>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <unistd.h>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"
#include "token_store.h"

namespace kamerton::data {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;

constexpr char kPrepareWhere[] = "data.prepare";
constexpr uint64_t kMaxNoteBytes = 1 << 20;

Dataset open_raw(const DataConfig& config,
                 bool held_out,
                 const text::TokenizerBundle& bundle,
                 int64_t max_positions) {
  DataConfig raw = config;
  raw.cut_windows = false;  // the documents' tokens are kept, for windows of any length
  raw.store = "off";
  raw.verify = "off";
  raw.check_bytes = 0;  // every record is read anyway
  Dataset set =
      held_out ? open_eval(raw, bundle, max_positions) : open_train(raw, bundle, max_positions);
  for (const Sources::Part& part : set.impl().sources.parts()) {
    if (part.made_for) {
      throw Error(ErrorKind::Config,
                  {.where = kPrepareWhere,
                   .what = part.files.front() + ": the data are tokens already",
                   .allowed = "raw files"});
    }
  }
  return set;
}

/// Numbers of the first records of parts, and the end. By bytes of text, so that a part's memory is
/// bounded.
std::vector<int64_t> cut_into_parts(const Dataset::Impl& data, int64_t part_bytes) {
  std::vector<int64_t> begins = {0};
  int64_t bytes = 0;
  const int64_t size = data.sources.size();
  for (int64_t i = 0; i < size; ++i) {
    bytes += static_cast<int64_t>(data.sources.record_bytes(i));
    if (bytes >= part_bytes && i + 1 < size) {
      begins.push_back(i + 1);
      bytes = 0;
    }
  }
  begins.push_back(size);
  return begins;
}

std::string part_name(int64_t number) {
  return fmt::format("part-{:05}.h5", number);
}

fs::path note_of(const fs::path& folder, const std::string& file) {
  return folder / (file.substr(0, file.size() - 3) + ".json");
}

class FolderLock {
 public:
  explicit FolderLock(const fs::path& path)
      : descriptor_(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) {
      throw Error(ErrorKind::Output,
                  {.where = kPrepareWhere,
                   .what = fmt::format("{}: the lock cannot be made: {}",
                                       path.string(),
                                       std::generic_category().message(errno))});
    }
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(descriptor_);
      throw Error(
          ErrorKind::Output,
          {.where = kPrepareWhere,
           .what = path.parent_path().string() + ": another process is preparing this token store",
           .hint = "wait for it"});
    }
  }
  ~FolderLock() { ::close(descriptor_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace

struct StorePreparation::Impl {
  Impl(Dataset opened, const DataConfig& config, int64_t part_bytes)
      : dataset(std::move(opened)),
        data(dataset.impl()),
        key(store_key(data,
                      static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1U, 8U)))),
        folder(store_folder(config, key)),
        making(folder.string() + ".making"),
        begins(cut_into_parts(data, part_bytes)) {}

  int64_t parts() const { return static_cast<int64_t>(begins.size()) - 1; }
  PartInfo wanted(int64_t part) const;
  /// The note of a part that lies whole in the folder.
  std::optional<PartInfo> finished(int64_t part, int threads) const;
  void make(int64_t part) const;
  void tidy() const;

  Dataset dataset;
  const Dataset::Impl& data;
  StoreKey key;
  fs::path folder;
  fs::path making;  ///< the folder's name until it is whole
  std::vector<int64_t> begins;
  std::unique_ptr<FolderLock> lock;
};

PartInfo StorePreparation::Impl::wanted(int64_t part) const {
  PartInfo info;
  info.file = part_name(part);
  info.first = begins[static_cast<size_t>(part)];
  info.records = begins[static_cast<size_t>(part) + 1] - info.first;
  return info;
}

std::optional<PartInfo> StorePreparation::Impl::finished(int64_t part, int threads) const {
  const PartInfo want = wanted(part);
  const fs::path note = note_of(making, want.file);
  const storage::FileSystem& files = storage::posix_filesystem();
  if (!files.file_size(note)) {
    return std::nullopt;
  }
  try {
    const PartInfo info = part_from_json(
        core::parse_json(files.read_file(note, kMaxNoteBytes), note.string()), note.string());
    const bool same =
        info.file == want.file && info.first == want.first && info.records == want.records;
    return same && part_is_whole(making, info, fresh_digests(threads)) ? std::optional(info)
                                                                       : std::nullopt;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data) {
      throw;
    }
    return std::nullopt;  // a torn note: the part is made again
  }
}

void StorePreparation::Impl::make(int64_t part) const {
  PartInfo info = wanted(part);
  PartWriter writer;
  for (int64_t i = info.first; i < info.first + info.records; ++i) {
    try {
      writer.add(data.tokenize(i));
    } catch (const Error&) {
      data.sources.tolerate_current_error(i);
      writer.add_bad();
    }
  }
  writer.publish(making, key.hex, info);
  storage::write_file_atomic(
      storage::posix_filesystem(), note_of(making, info.file), to_json(info).dump() + "\n");
}

/// Removes temporary files of runs that were killed. Only under the lock.
void StorePreparation::Impl::tidy() const {
  for (const std::string& name : storage::posix_filesystem().list(making)) {
    if (name.ends_with(".tmp")) {
      storage::posix_filesystem().remove_all(making / name);
    }
  }
}

StorePreparation::StorePreparation(const DataConfig& config,
                                   bool held_out,
                                   const text::TokenizerBundle& bundle,
                                   int64_t max_positions,
                                   int64_t part_bytes)
    : impl_(std::make_unique<Impl>(
          open_raw(config, held_out, bundle, max_positions), config, part_bytes)) {}
StorePreparation::~StorePreparation() = default;
StorePreparation::StorePreparation(StorePreparation&&) noexcept = default;

const Summary& StorePreparation::summary() const {
  return impl_->dataset.summary();
}
const fs::path& StorePreparation::folder() const {
  return impl_->folder;
}
int64_t StorePreparation::raw_bytes() const {
  return impl_->dataset.summary().bytes;
}
int64_t StorePreparation::parts() const {
  return impl_->parts();
}

bool StorePreparation::begin(int threads) {
  storage::FileSystem& files = storage::posix_filesystem();
  files.make_directories(impl_->folder.parent_path());
  impl_->lock = std::make_unique<FolderLock>(impl_->folder.string() + ".lock");
  if (files.is_directory(impl_->folder)) {
    try {
      TokenStore::open(impl_->folder,
                       impl_->key.hex,
                       impl_->data.bundle.tokenizer.vocab_size(),
                       fresh_digests(threads));
      return true;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::Data) {
        throw;
      }
      core::log_warning(std::string(error.what()) + "; it is mended now");
    }
    files.remove_all(impl_->making);
    files.rename(impl_->folder, impl_->making);
    files.remove_all(impl_->making / kStoreManifest);
  }
  files.make_directories(impl_->making);
  impl_->tidy();
  return false;
}

int64_t StorePreparation::make_parts(int rank, int world_size, int threads) {
  const Impl& work = *impl_;
  std::atomic<int64_t> next = rank;
  std::atomic<int64_t> made = 0;
  std::vector<std::exception_ptr> failures(static_cast<size_t>(std::max(threads, 1)));
  std::vector<std::thread> pool;
  for (std::exception_ptr& failure : failures) {
    pool.emplace_back([&] {
      try {
        for (int64_t part = next.fetch_add(world_size); part < work.parts();
             part = next.fetch_add(world_size)) {
          if (!work.finished(part, 1)) {
            work.make(part);
            ++made;
            core::log_debug(fmt::format("part {} of {}", part + 1, work.parts()));
          }
        }
      } catch (...) {
        failure = std::current_exception();
        next = work.parts();
      }
    });
  }
  for (std::thread& thread : pool) {
    thread.join();
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) {
      std::rethrow_exception(failure);
    }
  }
  return made;
}

PrepareReport StorePreparation::publish() {
  storage::FileSystem& files = storage::posix_filesystem();
  StoreManifest manifest{.key = impl_->key, .records = impl_->data.sources.size(), .parts = {}};
  PrepareReport report{.folder = impl_->folder, .records = manifest.records};
  for (int64_t part = 0; part < impl_->parts(); ++part) {
    const PartInfo want = impl_->wanted(part);
    const fs::path note = note_of(impl_->making, want.file);
    const PartInfo info = part_from_json(
        core::parse_json(files.read_file(note, kMaxNoteBytes), note.string()), note.string());
    report.tokens += info.tokens;
    report.targets += info.targets;
    report.bad += info.bad;
    report.stored_bytes += info.bytes;
    ++report.parts;
    manifest.parts.push_back(info);
  }
  storage::write_file_atomic(files, impl_->making / kStoreManifest, to_text(manifest));
  files.sync_directory(impl_->making);
  files.rename(impl_->making, impl_->folder);
  files.sync_directory(impl_->folder.parent_path());
  return report;
}

}  // namespace kamerton::data
