// SPDX-License-Identifier: Apache-2.0
#include "descriptor_pool.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "unit/data/support.h"

namespace kamerton::data {
namespace {

class Pool : public ::testing::Test {
 protected:
  void add(const std::string& name, const std::string& bytes) {
    auto& member = members_.emplace_back(std::make_unique<DescriptorPool::Member>());
    member->path = scratch_.write(name, bytes);
    auto open = std::make_shared<Descriptor>(::open(member->path.c_str(), O_RDONLY));
    struct stat status {};
    ASSERT_EQ(::fstat(open->number(), &status), 0);
    member->device = status.st_dev;
    member->inode = status.st_ino;
    pool_.add(*member, open);
  }
  std::string first_bytes(size_t index) {
    std::array<char, 4> bytes = {};
    const auto open = pool_.use(*members_[index]);
    return open && ::pread(open->number(), bytes.data(), 3, 0) == 3 ? bytes.data() : "";
  }

  Scratch scratch_;
  DescriptorPool pool_{3};
  std::vector<std::unique_ptr<DescriptorPool::Member>> members_;
};

TEST_F(Pool, ReadsMoreFilesThanItHoldsOpen) {
  for (int i = 0; i < 10; ++i) {
    add(std::to_string(i), std::to_string(100 + i));
    EXPECT_LE(pool_.open_files(), 3U);
  }
  for (const size_t i : {0, 9, 5, 5, 1, 0, 7, 3}) {
    EXPECT_EQ(first_bytes(i), std::to_string(100 + i));
    EXPECT_EQ(pool_.open_files(), 3U);
  }
}

TEST_F(Pool, AReaderKeepsWhatIsClosedMeanwhile) {
  add("a", "aaa");
  const auto held = pool_.use(*members_[0]);
  for (int i = 0; i < 5; ++i) {
    add(std::to_string(i), "xxx");
  }
  std::array<char, 4> bytes = {};
  EXPECT_EQ(members_[0]->open, nullptr);
  EXPECT_EQ(::pread(held->number(), bytes.data(), 3, 0), 3);
  EXPECT_STREQ(bytes.data(), "aaa");
}

TEST_F(Pool, TellsAFileThatIsGoneFromAnotherOfItsName) {
  for (int i = 0; i < 6; ++i) {
    add(std::to_string(i), "xxx");
  }
  std::filesystem::remove(members_[0]->path);
  EXPECT_EQ(pool_.use(*members_[0]), nullptr);
  EXPECT_EQ(errno, ENOENT);
  std::filesystem::rename(members_[2]->path, members_[1]->path);
  EXPECT_EQ(pool_.use(*members_[1]), nullptr);
  EXPECT_EQ(errno, ESTALE);
}

TEST_F(Pool, ForgetsWhatIsRemoved) {
  add("a", "aaa");
  add("b", "bbb");
  pool_.remove(*members_[0]);
  pool_.remove(*members_[0]);
  EXPECT_EQ(pool_.open_files(), 1U);
  EXPECT_EQ(first_bytes(0), "aaa") << "it may come back";
}

TEST_F(Pool, ThreadsReadTogether) {
  for (int i = 0; i < 8; ++i) {
    add(std::to_string(i), std::to_string(100 + i));
  }
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 2000; ++i) {
        const size_t index = (i * 7 + t * 3) % 8;
        wrong += first_bytes(index) != std::to_string(100 + index) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(pool_.open_files(), 3U);
}

}  // namespace
}  // namespace kamerton::data
