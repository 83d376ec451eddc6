// SPDX-License-Identifier: Apache-2.0
// What a backend provides. Group has checked shapes, dtypes, devices and contiguity before any of
// these is called.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "kamerton/comm/group.h"

namespace kamerton::comm {

class Recorder;

/// Who this rank is in a group. `id` is the same on all members and differs between groups of a
/// job.
struct Identity {
  int rank = 0;
  int size = 1;
  std::string name = "world";
  uint64_t id = 1;
};

/// One rank's end of a communicator. Collective unless said otherwise; sums in rank order
/// (reduce.h).
class GroupImpl {
 public:
  explicit GroupImpl(Identity identity, std::shared_ptr<Recorder> recorder = nullptr)
      : identity_(std::move(identity)), recorder_(std::move(recorder)) {}
  virtual ~GroupImpl() = default;
  GroupImpl(const GroupImpl&) = delete;
  GroupImpl& operator=(const GroupImpl&) = delete;

  const Identity& identity() const { return identity_; }
  const std::shared_ptr<Recorder>& recorder() const { return recorder_; }  ///< null: nobody watches
  uint64_t next_sequence() { return ++sequence_; }  ///< number of the collective, from 1
  /// The id of a group made by split; the same on its members.
  uint64_t child_id(int color);

  virtual bool takes(c10::Device device) const = 0;  ///< not collective
  virtual void barrier() = 0;
  virtual void all_reduce(at::Tensor& tensor, Reduce op) = 0;
  virtual void reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) = 0;
  virtual void all_gather(const at::Tensor& input, at::Tensor& output) = 0;
  virtual Work all_gather_async(const at::Tensor& input, at::Tensor& output) {
    all_gather(input, output);  // hosts have no core to spare for progress: engine.md, measured
    return {};
  }
  virtual void broadcast(at::Tensor& tensor, int root) = 0;
  virtual void all_to_all(const at::Tensor& input, at::Tensor& output) = 0;
  virtual std::shared_ptr<GroupImpl> split(int color, int key, const std::string& name) = 0;

 private:
  Identity identity_;
  std::shared_ptr<Recorder> recorder_;
  std::atomic<uint64_t> sequence_ = 0;
  uint64_t splits_ = 0;
};

/// A world of one: copies only, any device.
std::shared_ptr<GroupImpl> make_solo_group(Identity identity,
                                           std::shared_ptr<Recorder> recorder = nullptr);

/// What must agree between the ranks of a collective, folded into 64 bits (never 0).
uint64_t signature(std::string_view op, int64_t bytes, int64_t detail = 0);

}  // namespace kamerton::comm
