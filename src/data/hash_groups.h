// SPDX-License-Identifier: Apache-2.0
// Finds equal keys among more pairs than memory holds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kamerton::data {

struct KeyedId {
  uint64_t key = 0;
  int64_t id = 0;
  friend bool operator<(const KeyedId& a, const KeyedId& b) {
    return a.key != b.key ? a.key < b.key : a.id < b.id;
  }
};

/// Pairs are dealt into buckets by the first bits of their key; buckets that memory does not hold
/// lie in unnamed files. Linear in the number of pairs but for the sort of one bucket.
class HashGroups {
 public:
  /// `folder`: for the files; nullopt: the system's temporary folder.
  HashGroups(int64_t expected_pairs,
             uint64_t memory_bytes,
             const std::optional<std::string>& folder);
  ~HashGroups();
  HashGroups(const HashGroups&) = delete;
  HashGroups& operator=(const HashGroups&) = delete;

  /// Thread-safe. ErrorKind::Io when the disk is full.
  void add(std::span<const KeyedId> pairs);

  /// Each group of two or more pairs with the same key, ids ascending; groups in order of their
  /// key. Once, after the last add().
  void for_each(const std::function<void(std::span<const KeyedId>)>& visit);

 private:
  struct Bucket;
  void flush(Bucket& bucket);
  static void visit_sorted(std::span<KeyedId> pairs,
                           const std::function<void(std::span<const KeyedId>)>& visit);

  std::mutex mutex_;
  int shift_ = 64;  ///< of a key to its bucket
  std::optional<std::string> folder_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
};

}  // namespace kamerton::data
