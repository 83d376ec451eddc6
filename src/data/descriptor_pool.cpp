// SPDX-License-Identifier: Apache-2.0
#include "descriptor_pool.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kamerton::data {
namespace {

size_t capacity_of_process() {
  rlimit limit{};
  const rlim_t allowed = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 256;
  return static_cast<size_t>(std::clamp<rlim_t>(allowed / 8, 16, 512));
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) {
    ::close(number_);
  }
}

DescriptorPool& DescriptorPool::shared() {
  // Never destroyed: files may outlive every other static object.
  static auto* pool = new DescriptorPool(capacity_of_process());
  return *pool;
}

void DescriptorPool::put_first(Member& member, std::shared_ptr<Descriptor> open) {
  newest_first_.push_front(&member);
  member.place = newest_first_.begin();
  member.open = std::move(open);
  while (newest_first_.size() > capacity_) {
    newest_first_.back()->open.reset();  // a reader that has it goes on with it
    newest_first_.pop_back();
  }
}

void DescriptorPool::add(Member& member, std::shared_ptr<Descriptor> open) {
  const std::lock_guard lock(mutex_);
  put_first(member, std::move(open));
}

std::shared_ptr<Descriptor> DescriptorPool::use(Member& member) {
  {
    const std::lock_guard lock(mutex_);
    if (member.open) {
      newest_first_.splice(newest_first_.begin(), newest_first_, member.place);
      return member.open;
    }
  }
  // Opened outside of the lock: a slow file system must not hold up the other readers.
  const int number = ::open(member.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (number < 0) {
    return nullptr;
  }
  auto open = std::make_shared<Descriptor>(number);
  struct stat status {};
  if (::fstat(number, &status) != 0) {
    return nullptr;
  }
  if (status.st_dev != member.device || status.st_ino != member.inode) {
    errno = ESTALE;
    return nullptr;
  }
  const std::lock_guard lock(mutex_);
  if (!member.open) {  // another thread may have been quicker
    put_first(member, open);
  }
  return open;
}

void DescriptorPool::remove(Member& member) {
  const std::lock_guard lock(mutex_);
  if (member.open) {
    newest_first_.erase(member.place);
    member.open.reset();
  }
}

size_t DescriptorPool::open_files() {
  const std::lock_guard lock(mutex_);
  return newest_first_.size();
}

}  // namespace kamerton::data
