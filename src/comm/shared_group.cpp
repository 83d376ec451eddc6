// SPDX-License-Identifier: Apache-2.0
// Ranks of one node. Data passes through small staging buffers that stay in the cache: every rank
// copies what the others need in, all take a turn, every rank sums its own slice over all ranks in
// order.
#include <algorithm>
#include <vector>

#include "mpi_group.h"
#include "reduce.h"
#include "shared_turns.h"

namespace kamerton::comm {
namespace {

constexpr int64_t kAlign = 64;
constexpr int64_t kLineBytes = 4 * kAlign;
constexpr int64_t kSmallBytes = 16 * 1024;  // all-reduce: every rank sums everything, one turn

constexpr int64_t kCacheBytes = int64_t{16}
                                << 20;  // results beyond it do not stay in a cache anyway

Store store_for(const at::Tensor& output) {
  return static_cast<int64_t>(output.nbytes()) > kCacheBytes ? Store::Bypass : Store::Cached;
}
int64_t round_up(int64_t value) {
  return (value + kAlign - 1) / kAlign * kAlign;
}
int64_t stage_bytes(int size, const MpiOptions& options) {
  // A slice per rank of at least one cache line each.
  return std::max(round_up(options.staging_bytes), size * kAlign);
}
int64_t result_bytes(int size, const MpiOptions& options) {
  return round_up(stage_bytes(size, options) / size + kAlign);
}

class SharedGroup final : public MpiBase {
 public:
  SharedGroup(MPI_Comm comm,
              Identity identity,
              std::shared_ptr<Recorder> recorder,
              const MpiOptions& options,
              std::unique_ptr<SharedSegment> segment)
      : MpiBase(comm, std::move(identity), std::move(recorder), options),
        segment_(std::move(segment)),
        stage_bytes_(stage_bytes(size(), options)),
        result_bytes_(result_bytes(size(), options)),
        turns_(lines(), rank(), options.oversubscribed, this->identity().name),
        inputs_(static_cast<size_t>(size())) {}

  void barrier() override { turns_.pass(signature("barrier", 0)); }
  void all_reduce(at::Tensor& tensor, Reduce op) override;
  void reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) override;
  void all_gather(const at::Tensor& input, at::Tensor& output) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_to_all(const at::Tensor& input, at::Tensor& output) override;

 private:
  std::vector<TurnLine*> lines() const {
    std::vector<TurnLine*> all;
    for (int r = 0; r < size(); ++r) {
      all.push_back(reinterpret_cast<TurnLine*>(segment_->part(r)));
    }
    return all;
  }
  std::byte* stage(int r, int parity) const {
    return segment_->part(r) + kLineBytes + parity * stage_bytes_;
  }
  std::byte* result(int r, int parity) const {
    return segment_->part(r) + kLineBytes + 2 * stage_bytes_ + parity * result_bytes_;
  }
  /// Elements of a slice when the stage holds one slice per rank.
  int64_t slice_capacity(int64_t width) const {
    return stage_bytes_ / size() / kAlign * kAlign / width;
  }
  /// Copies each peer's slice of a [size * n] tensor into the stage.
  void stage_slices(const std::byte* input,
                    int64_t n_bytes,
                    int64_t offset,
                    int64_t bytes,
                    int64_t pitch,
                    int parity);
  void reduce_small(at::Tensor& tensor, Reduce op, uint64_t tag);
  void reduce_own_slice(at::Tensor& tensor, Reduce op, int64_t begin, int64_t count, int parity);
  void collect_results(at::Tensor& tensor, int64_t begin, int64_t count, int parity);

  std::unique_ptr<SharedSegment> segment_;
  int64_t stage_bytes_;
  int64_t result_bytes_;
  SharedTurns turns_;
  std::vector<const void*> inputs_;
};

const std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.const_data_ptr());
}
std::byte* bytes_of(at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr());
}

/// Where slice r of `count` elements begins when they are cut into `size` slices, the last ones
/// shorter.
int64_t slice_begin(int64_t count, int r, int size) {
  return std::min(count, (count + size - 1) / size * r);
}

void SharedGroup::stage_slices(const std::byte* input,
                               int64_t n_bytes,
                               int64_t offset,
                               int64_t bytes,
                               int64_t pitch,
                               int parity) {
  for (int r = 0; r < size(); ++r) {
    if (r != rank()) {
      copy_bytes(stage(rank(), parity) + r * pitch, input + r * n_bytes + offset, bytes);
    }
  }
}

void SharedGroup::reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) {
  const int64_t width = input.element_size();
  const int64_t count = output.numel();
  const int64_t capacity = slice_capacity(width);
  const int64_t pitch = capacity * width;
  const uint64_t tag = signature("reduce_scatter", count * width, static_cast<int64_t>(op));
  int64_t offset = 0;
  do {  // once for an empty tensor too: the ranks meet
    const int64_t n = std::min(capacity, count - offset);
    const int parity = turns_.parity();
    stage_slices(bytes_of(input), count * width, offset * width, n * width, pitch, parity);
    turns_.pass(tag);
    for (int r = 0; r < size(); ++r) {
      inputs_[r] = r == rank() ? bytes_of(input) + (rank() * count + offset) * width
                               : stage(r, parity) + rank() * pitch;
    }
    reduce_ranks(inputs_,
                 input.scalar_type(),
                 bytes_of(output) + offset * output.element_size(),
                 output.scalar_type(),
                 n,
                 op,
                 store_for(output));
    offset += n;
  } while (offset < count);
}

void SharedGroup::reduce_small(at::Tensor& tensor, Reduce op, uint64_t tag) {
  const int parity = turns_.parity();
  copy_bytes(stage(rank(), parity), tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
  turns_.pass(tag);
  for (int r = 0; r < size(); ++r) {
    inputs_[r] = stage(r, parity);
  }
  reduce_ranks(inputs_,
               tensor.scalar_type(),
               tensor.mutable_data_ptr(),
               tensor.scalar_type(),
               tensor.numel(),
               op);
}

/// The chunk [begin, begin + count) is staged by all; sums this rank's slice of it into the tensor
/// and the result buffer.
void SharedGroup::reduce_own_slice(
    at::Tensor& tensor, Reduce op, int64_t begin, int64_t count, int parity) {
  const int64_t width = tensor.element_size();
  const int64_t low = slice_begin(count, rank(), size());
  const int64_t n = slice_begin(count, rank() + 1, size()) - low;
  std::byte* own = bytes_of(tensor) + (begin + low) * width;
  for (int r = 0; r < size(); ++r) {
    inputs_[r] = r == rank() ? own : stage(r, parity) + low * width;
  }
  reduce_ranks(inputs_, tensor.scalar_type(), own, tensor.scalar_type(), n, op);
  copy_bytes(result(rank(), parity), own, n * width);
}

void SharedGroup::collect_results(at::Tensor& tensor, int64_t begin, int64_t count, int parity) {
  const int64_t width = tensor.element_size();
  for (int r = 0; r < size(); ++r) {
    if (r != rank()) {
      const int64_t low = slice_begin(count, r, size());
      copy_bytes(bytes_of(tensor) + (begin + low) * width,
                 result(r, parity),
                 (slice_begin(count, r + 1, size()) - low) * width);
    }
  }
}

/// A reduce-scatter and an all-gather of each chunk, the gather one turn behind: one barrier a
/// chunk.
void SharedGroup::all_reduce(at::Tensor& tensor, Reduce op) {
  const int64_t width = tensor.element_size();
  const int64_t count = tensor.numel();
  const uint64_t tag = signature("all_reduce", count * width, static_cast<int64_t>(op));
  if (count * width <= std::min(kSmallBytes, stage_bytes_)) {
    return reduce_small(tensor, op, tag);
  }
  const int64_t capacity = slice_capacity(width) * size();
  for (int64_t begin = 0; begin < count; begin += capacity) {
    const int64_t n = std::min(capacity, count - begin);
    const int parity = turns_.parity();
    const int64_t own_low = slice_begin(n, rank(), size()) * width;
    const int64_t own_high = slice_begin(n, rank() + 1, size()) * width;
    const std::byte* chunk = bytes_of(tensor) + begin * width;
    copy_bytes(stage(rank(), parity), chunk, own_low);
    copy_bytes(stage(rank(), parity) + own_high, chunk + own_high, n * width - own_high);
    turns_.pass(tag);
    reduce_own_slice(tensor, op, begin, n, parity);
    if (begin > 0) {
      collect_results(tensor, begin - capacity, capacity, 1 - parity);
    }
  }
  const int parity = turns_.parity();
  turns_.pass(tag);
  const int64_t last = (count - 1) / capacity * capacity;
  collect_results(tensor, last, count - last, 1 - parity);
}

void SharedGroup::all_gather(const at::Tensor& input, at::Tensor& output) {
  const int64_t bytes = static_cast<int64_t>(input.nbytes());
  const uint64_t tag = signature("all_gather", bytes);
  const Store store = store_for(output);
  int64_t offset = 0;
  do {
    const int64_t n = std::min(stage_bytes_, bytes - offset);
    const int parity = turns_.parity();
    copy_bytes(stage(rank(), parity), bytes_of(input) + offset, n);
    copy_bytes(bytes_of(output) + rank() * bytes + offset, bytes_of(input) + offset, n, store);
    turns_.pass(tag);
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) {
        copy_bytes(bytes_of(output) + r * bytes + offset, stage(r, parity), n, store);
      }
    }
    offset += n;
  } while (offset < bytes);
}

void SharedGroup::broadcast(at::Tensor& tensor, int root) {
  const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
  const uint64_t tag = signature("broadcast", bytes, root);
  int64_t offset = 0;
  do {
    const int64_t n = std::min(stage_bytes_, bytes - offset);
    const int parity = turns_.parity();
    if (rank() == root) {
      copy_bytes(stage(root, parity), bytes_of(tensor) + offset, n);
    }
    turns_.pass(tag);
    if (rank() != root) {
      copy_bytes(bytes_of(tensor) + offset, stage(root, parity), n);
    }
    offset += n;
  } while (offset < bytes);
}

void SharedGroup::all_to_all(const at::Tensor& input, at::Tensor& output) {
  const int64_t bytes = static_cast<int64_t>(input.nbytes()) / size();
  const int64_t pitch = slice_capacity(1);
  const uint64_t tag = signature("all_to_all", bytes);
  int64_t offset = 0;
  do {
    const int64_t n = std::min(pitch, bytes - offset);
    const int parity = turns_.parity();
    stage_slices(bytes_of(input), bytes, offset, n, pitch, parity);
    copy_bytes(
        bytes_of(output) + rank() * bytes + offset, bytes_of(input) + rank() * bytes + offset, n);
    turns_.pass(tag);
    for (int r = 0; r < size(); ++r) {
      if (r != rank()) {
        copy_bytes(bytes_of(output) + r * bytes + offset, stage(r, parity) + rank() * pitch, n);
      }
    }
    offset += n;
  } while (offset < bytes);
}

}  // namespace

int64_t shared_group_bytes(int size, const MpiOptions& options) {
  return kLineBytes + 2 * stage_bytes(size, options) + 2 * result_bytes(size, options);
}

std::shared_ptr<GroupImpl> make_shared_group(MPI_Comm comm,
                                             Identity identity,
                                             std::shared_ptr<Recorder> recorder,
                                             const MpiOptions& options,
                                             std::unique_ptr<SharedSegment> segment) {
  return std::make_shared<SharedGroup>(
      comm, std::move(identity), std::move(recorder), options, std::move(segment));
}

}  // namespace kamerton::comm
