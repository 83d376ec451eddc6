// SPDX-License-Identifier: Apache-2.0
#include "hash_groups.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr int kMaxBucketBits = 9;
constexpr size_t kHashGroupsBuffered = 1 << 10;  // pairs a bucket holds before it writes

[[noreturn]] void cannot(const char* what, const std::string& folder) {
  throw Error(
      ErrorKind::Io,
      {.where = "data.duplicates",
       .what = fmt::format("{}: {}: {}", folder, what, std::generic_category().message(errno)),
       .hint = "data.index_dir: a folder with room that may be written"});
}

/// A file without a name: it goes with the process, whatever happens.
int open_unnamed(const std::optional<std::string>& folder) {
  std::error_code ignored;
  if (folder) {
    std::filesystem::create_directories(*folder, ignored);
  }
  const std::string base =
      folder ? *folder : std::filesystem::temp_directory_path(ignored).string();
  std::string name = base + "/kamerton-pairs-XXXXXX";
  const int descriptor = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor < 0) {
    cannot("a temporary file cannot be made", base);
  }
  ::unlink(name.c_str());
  return descriptor;
}

}  // namespace

struct HashGroups::Bucket {
  std::vector<KeyedId> waiting;
  int descriptor = -1;
  size_t written = 0;  ///< pairs in the file
  ~Bucket() {
    if (descriptor >= 0) {
      ::close(descriptor);
    }
  }
};

HashGroups::HashGroups(int64_t expected_pairs,
                       uint64_t memory_bytes,
                       const std::optional<std::string>& folder)
    : folder_(folder) {
  const uint64_t bytes =
      static_cast<uint64_t>(std::max<int64_t>(expected_pairs, 1)) * sizeof(KeyedId);
  const uint64_t parts = (bytes + memory_bytes - 1) / std::max<uint64_t>(memory_bytes, 1);
  const int bits = std::min(kMaxBucketBits, static_cast<int>(std::bit_width(parts - 1)));
  shift_ = 64 - bits;
  for (int i = 0; i < 1 << bits; ++i) {
    buckets_.push_back(std::make_unique<Bucket>());
  }
}

HashGroups::~HashGroups() = default;

void HashGroups::flush(Bucket& bucket) {
  if (bucket.descriptor < 0) {
    bucket.descriptor = open_unnamed(folder_);
  }
  const auto bytes = std::as_bytes(std::span<const KeyedId>(bucket.waiting));
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t got = ::write(bucket.descriptor, bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno != EINTR) {
      cannot("a temporary file cannot be written", folder_.value_or("the temporary folder"));
    }
    done += got > 0 ? static_cast<size_t>(got) : 0;
  }
  bucket.written += bucket.waiting.size();
  bucket.waiting.clear();
}

void HashGroups::add(std::span<const KeyedId> pairs) {
  const std::scoped_lock lock(mutex_);
  for (const KeyedId& pair : pairs) {
    Bucket& bucket = *buckets_[shift_ == 64 ? 0 : pair.key >> shift_];
    bucket.waiting.push_back(pair);
    if (buckets_.size() > 1 && bucket.waiting.size() >= kHashGroupsBuffered) {
      flush(bucket);
    }
  }
}

void HashGroups::visit_sorted(std::span<KeyedId> pairs,
                              const std::function<void(std::span<const KeyedId>)>& visit) {
  std::sort(pairs.begin(), pairs.end());
  for (size_t begin = 0; begin < pairs.size();) {
    size_t end = begin + 1;
    while (end < pairs.size() && pairs[end].key == pairs[begin].key) {
      ++end;
    }
    if (end - begin > 1) {
      visit(pairs.subspan(begin, end - begin));
    }
    begin = end;
  }
}

void HashGroups::for_each(const std::function<void(std::span<const KeyedId>)>& visit) {
  for (auto& bucket : buckets_) {
    if (bucket->descriptor < 0) {
      visit_sorted(bucket->waiting, visit);
      bucket.reset();
      continue;
    }
    flush(*bucket);
    // Sorted in the file's own pages: a bucket that one frequent key has filled need not fit.
    const size_t bytes = bucket->written * sizeof(KeyedId);
    void* mapped =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bucket->descriptor, 0);
    if (mapped == MAP_FAILED) {
      cannot("a temporary file cannot be read", folder_.value_or("the temporary folder"));
    }
    const std::unique_ptr<void, std::function<void(void*)>> guard(
        mapped, [bytes](void* address) { ::munmap(address, bytes); });
    visit_sorted({static_cast<KeyedId*>(mapped), bucket->written}, visit);
    bucket.reset();
  }
}

}  // namespace kamerton::data
