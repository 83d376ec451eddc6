// SPDX-License-Identifier: Apache-2.0
// Files that are read by position, more of them than a process may hold open.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string>

#include <sys/types.h>

namespace kamerton::data {

/// An open file; closed with its last holder.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor();
  int number() const { return number_; }

 private:
  int number_;
};

/// Keeps the files that were read last open and opens the others again by name when they are read.
/// Any thread may call.
class DescriptorPool {
 public:
  /// A file of the pool: its name, and which file that was.
  struct Member {
    std::string path;
    dev_t device = 0;
    ino_t inode = 0;
    std::shared_ptr<Descriptor> open = {};    // null while it is closed
    std::list<Member*>::iterator place = {};  // valid while it is open
  };

  explicit DescriptorPool(size_t capacity) : capacity_(capacity) {}

  /// One for the process: an eighth of the descriptors that it may have, 16 to 512.
  static DescriptorPool& shared();

  /// Adds a file that is open; others are closed in its place.
  void add(Member& member, std::shared_ptr<Descriptor> open);
  /// The open file. Null when nothing has its name any more or the name is another file's now;
  /// errno says which (ENOENT, ESTALE, or what open() said).
  std::shared_ptr<Descriptor> use(Member& member);
  void remove(Member& member);

  size_t open_files();

 private:
  void put_first(Member& member, std::shared_ptr<Descriptor> open);

  std::mutex mutex_;
  size_t capacity_;
  std::list<Member*> newest_first_;
};

}  // namespace kamerton::data
