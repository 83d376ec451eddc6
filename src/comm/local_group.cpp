// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/local_group.h"

#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "kamerton/core/error.h"

#include "group_impl.h"
#include "reduce.h"

namespace kamerton::comm {
namespace {

/// Follows from another rank's failure.
struct PeerFailed : core::Error {
  using core::Error::Error;
};

/// All threads of one run_local: one lock, so that a failure wakes every group.
struct Job {
  explicit Job(int size) : gone(static_cast<size_t>(size), false) {}
  std::mutex mutex;
  std::condition_variable changed;
  int failed_rank = -1;    ///< guarded by mutex
  std::vector<bool> gone;  ///< ranks whose body has returned; guarded by mutex

  void leave(int rank, bool failed) {
    const std::lock_guard lock(mutex);
    gone[rank] = true;
    if (failed && failed_rank < 0) {
      failed_rank = rank;
    }
    changed.notify_all();
  }
};

/// What the members of one group share. Slots are written before a sync and read after it.
struct Shared {
  Shared(std::shared_ptr<Job> owner, std::vector<int> world_ranks)
      : job(std::move(owner)), members(std::move(world_ranks)), slots(members.size()) {}

  struct Slot {
    const void* data = nullptr;
    uint64_t tag = 0;
    std::pair<int, int> color_key;
    std::shared_ptr<Shared> child;
  };
  std::shared_ptr<Job> job;
  const std::vector<int> members;  ///< world rank of each rank of the group
  std::vector<Slot> slots;
  int waiting = 0;          ///< guarded by job->mutex
  uint64_t generation = 0;  ///< guarded by job->mutex

  /// Returns when all members are here; throws when one cannot come.
  void sync(const std::string& name, int rank) {
    std::unique_lock lock(job->mutex);
    const uint64_t mine = generation;
    if (++waiting == static_cast<int>(members.size())) {
      waiting = 0;
      ++generation;
      job->changed.notify_all();
      return;
    }
    int lost = -1;
    job->changed.wait(lock, [&] {
      lost = job->failed_rank;
      for (const int member : members) {
        lost = lost < 0 && job->gone[member] ? member : lost;
      }
      return generation != mine || lost >= 0;
    });
    if (generation == mine) {
      throw PeerFailed(
          core::ErrorKind::Comm,
          {.where = "comm.local_group",
           .what = fmt::format("a peer is gone while rank {} of group {} waits for it", rank, name),
           .got = fmt::format("no rank {}", lost)});
    }
  }
};

std::byte* at_byte(const void* data, int64_t offset) {
  return static_cast<std::byte*>(const_cast<void*>(data)) + offset;
}

class LocalGroup final : public GroupImpl {
 public:
  LocalGroup(Identity identity, std::shared_ptr<Shared> shared)
      : GroupImpl(std::move(identity)), shared_(std::move(shared)) {}

  bool takes(c10::Device device) const override { return device.is_cpu(); }
  void barrier() override { meet(nullptr, signature("barrier", 0)); }

  void all_reduce(at::Tensor& tensor, Reduce op) override {
    const int64_t width = tensor.element_size();
    const int64_t count = tensor.numel();
    const int64_t slice = (count + size() - 1) / size();
    const auto begin = [&](int r) { return std::min(count, r * slice); };
    meet(tensor.data_ptr(), signature("all_reduce", count * width, static_cast<int64_t>(op)));
    // Rank r reads and writes slice r alone: in place is safe.
    reduce_slice(tensor,
                 begin(rank()),
                 begin(rank() + 1) - begin(rank()),
                 at_byte(tensor.data_ptr(), begin(rank()) * width),
                 tensor.scalar_type(),
                 op);
    sync();
    for (int r = 0; r < size(); ++r) {
      const int64_t offset = begin(r) * width;
      copy_bytes(at_byte(tensor.data_ptr(), offset),
                 at_byte(peer(r), offset),
                 begin(r + 1) * width - offset);
    }
    sync();
  }

  void reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) override {
    const int64_t count = output.numel();
    meet(input.const_data_ptr(),
         signature(
             "reduce_scatter", static_cast<int64_t>(input.nbytes()), static_cast<int64_t>(op)));
    reduce_slice(input, rank() * count, count, output.data_ptr(), output.scalar_type(), op);
    sync();
  }

  void all_gather(const at::Tensor& input, at::Tensor& output) override {
    const int64_t bytes = static_cast<int64_t>(input.nbytes());
    meet(input.const_data_ptr(), signature("all_gather", bytes));
    for (int r = 0; r < size(); ++r) {
      copy_bytes(at_byte(output.data_ptr(), r * bytes), peer(r), bytes);
    }
    sync();
  }

  void broadcast(at::Tensor& tensor, int root) override {
    const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
    meet(tensor.data_ptr(), signature("broadcast", bytes, root));
    copy_bytes(tensor.data_ptr(), peer(root), bytes);
    sync();
  }

  void all_to_all(const at::Tensor& input, at::Tensor& output) override {
    const int64_t bytes = static_cast<int64_t>(input.nbytes()) / size();
    meet(input.const_data_ptr(), signature("all_to_all", bytes));
    for (int r = 0; r < size(); ++r) {
      copy_bytes(at_byte(output.data_ptr(), r * bytes), at_byte(peer(r), rank() * bytes), bytes);
    }
    sync();
  }

  std::shared_ptr<GroupImpl> split(int color, int key, const std::string& name) override {
    shared_->slots[rank()].color_key = {color, key};
    meet(nullptr, signature("split", 0));
    std::vector<std::pair<int, int>> order;  // (key, rank) of those with this color
    for (int r = 0; r < size(); ++r) {
      if (shared_->slots[r].color_key.first == color) {
        order.emplace_back(shared_->slots[r].color_key.second, r);
      }
    }
    std::sort(order.begin(), order.end());
    std::vector<int> members;
    Identity self{
        .rank = 0, .size = static_cast<int>(order.size()), .name = name, .id = child_id(color)};
    for (const auto& [k, r] : order) {
      self.rank = r == rank() ? static_cast<int>(members.size()) : self.rank;
      members.push_back(shared_->members[r]);
    }
    const int first = order.front().second;
    if (rank() == first) {
      shared_->slots[first].child = std::make_shared<Shared>(shared_->job, std::move(members));
    }
    sync();
    auto child = shared_->slots[first].child;
    sync();
    return std::make_shared<LocalGroup>(std::move(self), std::move(child));
  }

 private:
  int rank() const { return identity().rank; }
  int size() const { return identity().size; }
  const void* peer(int r) const { return shared_->slots[r].data; }
  void sync() { shared_->sync(identity().name, rank()); }

  /// Shows `data` to the peers, waits for theirs, and checks that all are in the same collective.
  void meet(const void* data, uint64_t tag) {
    shared_->slots[rank()].data = data;
    shared_->slots[rank()].tag = tag;
    sync();
    for (int r = 0; r < size(); ++r) {
      if (shared_->slots[r].tag != tag) {
        throw core::Error(core::ErrorKind::Comm,
                          {.where = "comm.local_group",
                           .what = fmt::format("ranks {} and {} of group {} are in different "
                                               "collectives or pass different sizes",
                                               rank(),
                                               r,
                                               identity().name)});
      }
    }
  }

  void reduce_slice(const at::Tensor& like,
                    int64_t begin,
                    int64_t count,
                    void* out,
                    at::ScalarType out_type,
                    Reduce op) {
    std::vector<const void*> inputs;
    for (int r = 0; r < size(); ++r) {
      inputs.push_back(at_byte(peer(r), begin * like.element_size()));
    }
    reduce_ranks(inputs, like.scalar_type(), out, out_type, count, op);
  }

  std::shared_ptr<Shared> shared_;
};

/// What a rank's body ended with. Errors that follow from a peer's failure are kept apart.
struct Outcome {
  std::exception_ptr error;
  bool follows_from_peer = false;
};

Outcome run_rank(const std::function<void(Group)>& body, Group group) {
  try {
    body(std::move(group));
  } catch (const PeerFailed&) {
    return {std::current_exception(), true};
  } catch (...) {
    return {std::current_exception(), false};
  }
  return {};
}

}  // namespace

void run_local(int size, const std::function<void(Group)>& body) {
  if (size < 1) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "comm.run_local",
                       .what = "too few ranks",
                       .got = std::to_string(size),
                       .allowed = "1 or more"});
  }
  const auto job = std::make_shared<Job>(size);
  std::vector<int> everyone(static_cast<size_t>(size));
  for (int r = 0; r < size; ++r) {
    everyone[r] = r;
  }
  const auto shared = std::make_shared<Shared>(job, everyone);
  std::vector<Outcome> outcomes(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      Identity self{.rank = r, .size = size};
      outcomes[r] = run_rank(body, Group(std::make_shared<LocalGroup>(std::move(self), shared)));
      job->leave(r, outcomes[r].error != nullptr);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const bool follows : {false, true}) {
    for (const Outcome& outcome : outcomes) {
      if (outcome.error && outcome.follows_from_peer == follows) {
        std::rethrow_exception(outcome.error);
      }
    }
  }
}

}  // namespace kamerton::comm
