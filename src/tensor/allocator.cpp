// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/allocator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>
#include <unordered_map>

#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>

#include "size_class.h"

namespace kamerton::tensor {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeepsBlocks = false;  // kept blocks would hide every use after free and overrun
#else
constexpr bool kKeepsBlocks = true;
#endif
constexpr size_t kMapped = size_t{1} << 20;    // from here on blocks are mappings of their own
constexpr size_t kHugePage = size_t{2} << 20;  // and from here on huge pages are asked for
constexpr size_t kHeapTrim = size_t{32} << 20;

/// A block of memory. Tensors carry its address only: libraries that allocate and free by address
/// (oneDNN's scratch memory) need the context of the data to be the data.
struct Block {
  void* data = nullptr;
  size_t bytes = 0;
  int size_class = 0;
};

void* map_block(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return nullptr;
  }
  if (bytes >= kHugePage) {
    madvise(data,
            bytes,
            MADV_HUGEPAGE);  // a hint: a kernel without huge pages says no, and nothing is lost
  }
  return data;
}

class CachingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) {
      return {nullptr, nullptr, nullptr, c10::Device(c10::kCPU)};
    }
    Block* block = take(bytes);
    return {block->data, block->data, &CachingAllocator::give_back, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &CachingAllocator::give_back; }

  void copy_data(void* dest, const void* src, std::size_t count) const override {
    std::memcpy(dest, src, count);
  }

  AllocatorStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak_live_bytes = stats_.live_bytes;
  }
  void trim() {
    const std::lock_guard lock(mutex_);
    release_free(0);
  }

 private:
  static void give_back(void* data);

  Block* take(size_t bytes) {
    const int wanted = size_class_of(bytes);
    const std::lock_guard lock(mutex_);
    Block* block = reuse(wanted);
    if (block == nullptr) {
      block = kKeepsBlocks ? fetch(wanted) : fetch_exact(bytes, wanted);
    }
    stats_.live_bytes += static_cast<int64_t>(block->bytes);
    stats_.peak_live_bytes = std::max(stats_.peak_live_bytes, stats_.live_bytes);
    return block;
  }

  /// The newest free block of the class (its pages are warm); large ones may be two classes larger.
  Block* reuse(int wanted) {
    const int last = bytes_of_class(wanted) >= kMapped ? wanted + 2 : wanted;
    for (int c = wanted; c <= last && c < kSizeClasses; ++c) {
      auto& free = free_[static_cast<size_t>(c)];
      if (!free.empty()) {
        Block* block = free.back();
        free.pop_back();
        return block;
      }
    }
    return nullptr;
  }

  Block* fetch(int wanted) {
    const size_t bytes = bytes_of_class(wanted);
    if (bytes >= kMapped) {
      keep_cache_small(bytes);
    }
    void* data = obtain(bytes);
    if (data == nullptr) {
      release_free(0);
      data = obtain(bytes);
    }
    if (data == nullptr) {
      throw std::bad_alloc();
    }
    stats_.reserved_bytes += static_cast<int64_t>(bytes);
    Block& block = blocks_[data];  // addresses of the map's elements stay
    block = {data, bytes, wanted};
    return &block;
  }

  /// Of the size asked for, so that a sanitizer sees the byte after it.
  Block* fetch_exact(size_t bytes, int size_class) {
    void* data = nullptr;
    if (posix_memalign(&data, 64, bytes) != 0) {
      throw std::bad_alloc();
    }
    stats_.reserved_bytes += static_cast<int64_t>(bytes);
    Block& block = blocks_[data];
    block = {data, bytes, size_class};
    return &block;
  }

  static void* obtain(size_t bytes) {
    return bytes >= kMapped ? map_block(bytes) : std::aligned_alloc(64, bytes);
  }

  /// Batches of changing size leave free blocks of many classes behind: before new memory is taken,
  /// free blocks beyond an eighth of what was ever in use go back.
  void keep_cache_small(size_t incoming) {
    const int64_t limit = stats_.peak_live_bytes + stats_.peak_live_bytes / 8 + (int64_t{32} << 20);
    const int64_t after = stats_.reserved_bytes + static_cast<int64_t>(incoming);
    if (after > limit) {
      release_free(std::max<int64_t>(0, limit - static_cast<int64_t>(incoming)));
    }
  }

  /// Returns free blocks to the system, the largest first, until no more than `target` bytes are
  /// reserved.
  void release_free(int64_t target) {
    for (int c = kSizeClasses - 1; c >= 0 && stats_.reserved_bytes > target; --c) {
      auto& free = free_[static_cast<size_t>(c)];
      while (!free.empty() && stats_.reserved_bytes > target) {
        const Block block = *free.front();
        free.pop_front();
        blocks_.erase(block.data);
        stats_.reserved_bytes -= static_cast<int64_t>(block.bytes);
        if (kKeepsBlocks && block.bytes >= kMapped) {
          munmap(block.data, block.bytes);
        } else {
          std::free(block.data);
          heap_freed_ += block.bytes;
        }
      }
    }
    if (heap_freed_ >= kHeapTrim) {  // the C library keeps pages between blocks that are in use
      heap_freed_ = 0;
      malloc_trim(0);
    }
  }

  std::mutex mutex_;
  std::array<std::deque<Block*>, kSizeClasses> free_;
  std::unordered_map<void*, Block> blocks_;
  size_t heap_freed_ = 0;  ///< since the last trim
  AllocatorStats stats_;
};

CachingAllocator* installed = nullptr;

void CachingAllocator::give_back(void* data) {
  if (data == nullptr) {
    return;
  }
  CachingAllocator& self = *installed;
  const std::lock_guard lock(self.mutex_);
  Block& block = self.blocks_.at(data);
  self.stats_.live_bytes -= static_cast<int64_t>(block.bytes);
  self.free_[static_cast<size_t>(block.size_class)].push_back(&block);
  if (!kKeepsBlocks) {
    self.release_free(0);
  }
}

}  // namespace

void install_allocator() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Never destroyed: tensors in static objects are freed after main.
    installed = new CachingAllocator();
    c10::SetCPUAllocator(installed, 1);
  });
}

bool allocator_installed() {
  return installed != nullptr;
}

AllocatorStats allocator_stats() {
  return installed == nullptr ? AllocatorStats{} : installed->stats();
}

void reset_peak() {
  if (installed != nullptr) {
    installed->reset_peak();
  }
}

void trim_allocator() {
  if (installed != nullptr) {
    installed->trim();
  }
}

}  // namespace kamerton::tensor
