// SPDX-License-Identifier: Apache-2.0
// A set of ranks that compute together. A value handle: copies share the communicator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "kamerton/comm/reduce_op.h"

namespace kamerton::comm {

class GroupImpl;

/// A collective under way; wait() before reading its output. Default-constructed: already complete.
/// The destructor does not wait (no collective in a destructor): an un-waited work is a programming
/// error.
class Work {
 public:
  struct Impl {
    virtual ~Impl() = default;
    virtual void wait() = 0;
  };
  Work() = default;
  explicit Work(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  void wait() {
    if (impl_) {
      impl_->wait();
      impl_.reset();
    }
  }

 private:
  std::shared_ptr<Impl> impl_;
};

/// Every member function but rank(), size(), name() is collective: all ranks of the group call it,
/// in the same order, with the same shapes and dtypes. Tensors are contiguous; float, bfloat16,
/// half, double, int64, int32, uint8 (Sum of the 16-bit types accumulates in fp32 and rounds once).
/// Sums are taken in rank order, so the result has the same bits on every rank, in every run, and
/// all_reduce == reduce_scatter + all_gather bit for bit. Errors: ErrorKind::Comm naming op, group
/// and the rank; a peer that died ends the job (Session, Watchdog).
class Group {
 public:
  Group();  ///< a world of one
  explicit Group(std::shared_ptr<GroupImpl> impl);

  int rank() const;
  int size() const;
  const std::shared_ptr<GroupImpl>& impl() const { return impl_; }  ///< for backends
  const std::string& name() const;  ///< "world", "shard", ... for messages

  void barrier() const;
  /// In place.
  void all_reduce(at::Tensor& tensor, Reduce op = Reduce::Sum) const;
  /// input [size * n] -> output [n]: this rank's n, reduced over ranks. The output of a bfloat16 or
  /// half input may be float (the unrounded sum). With equal dtypes `output` may be the rank's own
  /// slice of `input`.
  void reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op = Reduce::Sum) const;
  /// input [n] -> output [size * n] in rank order. `input` may be the rank's own slice of `output`.
  void all_gather(const at::Tensor& input, at::Tensor& output) const;
  /// As all_gather; input and output must stay alive and untouched until wait().
  Work all_gather_async(const at::Tensor& input, at::Tensor& output) const;
  void broadcast(at::Tensor& tensor, int root) const;
  /// input [size * n] -> output [size * n]: slice r of the input goes to rank r; slice s of the
  /// output came from rank s.
  void all_to_all(const at::Tensor& input, at::Tensor& output) const;

  /// Ranks with the same color form a group, ordered by (key, rank).
  Group split(int color, int key, const std::string& name) const;

  // Host scalars and bytes, by way of the functions above.
  int64_t sum(int64_t value) const;
  int64_t max(int64_t value) const;
  int64_t min(int64_t value) const;
  double sum(double value) const;  ///< in rank order
  double max(double value) const;
  bool any(bool value) const;  ///< true when it is true on one rank
  std::vector<int64_t> all_gather(int64_t value) const;
  std::vector<double> all_gather(double value) const;
  std::vector<std::string> all_gather(std::string_view bytes) const;  ///< any length a rank
  std::string broadcast(std::string_view bytes, int root) const;  ///< only root's argument counts

 private:
  std::shared_ptr<GroupImpl> impl_;
};

}  // namespace kamerton::comm
