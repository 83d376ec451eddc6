// SPDX-License-Identifier: Apache-2.0
// A thread of its own that makes things ahead of need.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace kamerton::data {

/// Calls `make` on its own thread, at most `depth` results ahead; with depth 0 on the caller's,
/// when asked. next() is for one thread. What `make` throws comes out of the next() whose result it
/// would have been, and of every one after.
template <class T>
class Prefetcher {
 public:
  Prefetcher(std::function<T()> make, size_t depth) : make_(std::move(make)), depth_(depth) {}
  ~Prefetcher() { stop(); }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  T next() {
    if (depth_ == 0) {
      return make_();
    }
    if (!thread_.joinable()) {
      thread_ = std::thread([this] { run(); });
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !ready_.empty() || failure_; });
    if (ready_.empty()) {
      std::rethrow_exception(failure_);
    }
    T result = std::move(ready_.front());
    ready_.pop_front();
    changed_.notify_all();
    return result;
  }

  /// Ends the thread and drops what it made; the next next() starts afresh.
  void stop() {
    if (thread_.joinable()) {
      {
        const std::scoped_lock lock(mutex_);
        stopping_ = true;
      }
      changed_.notify_all();
      thread_.join();
      thread_ = std::thread();
    }
    ready_.clear();
    failure_ = nullptr;
    stopping_ = false;
  }

 private:
  void run() {
    while (true) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || ready_.size() < depth_; });
        if (stopping_) {
          return;
        }
      }
      std::optional<T> made;
      std::exception_ptr failure;
      try {
        made = make_();
      } catch (...) {
        failure = std::current_exception();
      }
      const std::scoped_lock lock(mutex_);
      if (failure) {
        failure_ = failure;
      } else {
        ready_.push_back(std::move(*made));
      }
      changed_.notify_all();
      if (failure) {
        return;
      }
    }
  }

  std::function<T()> make_;
  size_t depth_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> ready_;
  std::exception_ptr failure_;
  bool stopping_ = false;
};

}  // namespace kamerton::data
