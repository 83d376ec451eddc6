// SPDX-License-Identifier: Apache-2.0
// Ranks on several nodes. MPI moves slices, the sums are taken here in rank order: MPI_Reduce*
// fixes no order, so the same job on one node and on two would differ in bits.
#include <algorithm>
#include <vector>

#include "mpi_check.h"
#include "mpi_group.h"
#include "reduce.h"

namespace kamerton::comm {
namespace {

constexpr int64_t kMessageFactor = 8;  // a network message is longer than a cache-sized stage

const std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.const_data_ptr());
}
std::byte* bytes_of(at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr());
}

class ExchangeGroup final : public MpiBase {
 public:
  using MpiBase::MpiBase;

  void barrier() override { mpi_check(MPI_Barrier(mpi())); }
  void all_reduce(at::Tensor& tensor, Reduce op) override;
  void reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) override;
  void all_gather(const at::Tensor& input, at::Tensor& output) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_to_all(const at::Tensor& input, at::Tensor& output) override;

 private:
  /// Bytes of one slice in a message: whole elements, all slices together within the message size.
  int64_t slice_bytes() const {
    const int64_t bytes = options().staging_bytes * kMessageFactor / size() / 64 * 64;
    return std::clamp(bytes, int64_t{64}, int64_t{1} << 30);
  }
  /// Sends slice r of `send_` to rank r; afterwards slice r of `receive_` came from rank r. Slices
  /// are `bytes` long.
  void exchange(int64_t bytes) {
    mpi_check(MPI_Alltoall(send_.data(),
                           static_cast<int>(bytes),
                           MPI_BYTE,
                           receive_.data(),
                           static_cast<int>(bytes),
                           MPI_BYTE,
                           mpi()));
  }
  void reserve(int64_t slice) {
    const size_t bytes = static_cast<size_t>(slice * size());
    if (send_.size() < bytes) {
      send_.resize(bytes);
      receive_.resize(bytes);
    }
  }
  /// Sums the slices of `receive_` in rank order.
  void reduce_received(int64_t slice,
                       at::ScalarType in,
                       void* out,
                       at::ScalarType out_type,
                       int64_t count,
                       Reduce op) {
    inputs_.clear();
    for (int r = 0; r < size(); ++r) {
      inputs_.push_back(receive_.data() + r * slice);
    }
    reduce_ranks(inputs_, in, out, out_type, count, op);
  }

  std::vector<std::byte> send_, receive_;  ///< grow to what was needed, at most one message
  std::vector<const void*> inputs_;
};

void ExchangeGroup::reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) {
  const int64_t width = input.element_size();
  const int64_t bytes = output.numel() * width;
  for (int64_t offset = 0; offset < bytes;) {
    const int64_t n = std::min(slice_bytes(), bytes - offset);
    reserve(n);
    for (int r = 0; r < size(); ++r) {
      copy_bytes(send_.data() + r * n, bytes_of(input) + r * bytes + offset, n);
    }
    exchange(n);
    reduce_received(n,
                    input.scalar_type(),
                    bytes_of(output) + offset / width * output.element_size(),
                    output.scalar_type(),
                    n / width,
                    op);
    offset += n;
  }
}

/// A reduce-scatter and an all-gather of each chunk; the last chunk is padded to a slice per rank.
void ExchangeGroup::all_reduce(at::Tensor& tensor, Reduce op) {
  const int64_t width = tensor.element_size();
  const int64_t total = static_cast<int64_t>(tensor.nbytes());
  const int64_t chunk = slice_bytes() * size();
  for (int64_t begin = 0; begin < total; begin += chunk) {
    const int64_t n = std::min(chunk, total - begin);
    const int64_t slice = (n / width + size() - 1) / size() * width;
    reserve(slice);
    copy_bytes(send_.data(), bytes_of(tensor) + begin, n);
    std::fill(send_.begin() + n, send_.begin() + slice * size(), std::byte{0});
    exchange(slice);
    reduce_received(
        slice, tensor.scalar_type(), send_.data(), tensor.scalar_type(), slice / width, op);
    mpi_check(MPI_Allgather(send_.data(),
                            static_cast<int>(slice),
                            MPI_BYTE,
                            receive_.data(),
                            static_cast<int>(slice),
                            MPI_BYTE,
                            mpi()));
    copy_bytes(bytes_of(tensor) + begin, receive_.data(), n);
  }
}

void ExchangeGroup::all_gather(const at::Tensor& input, at::Tensor& output) {
  const int64_t bytes = static_cast<int64_t>(input.nbytes());
  for (int64_t offset = 0; offset < bytes;) {
    const int64_t n = std::min(slice_bytes(), bytes - offset);
    reserve(n);
    mpi_check(MPI_Allgather(bytes_of(input) + offset,
                            static_cast<int>(n),
                            MPI_BYTE,
                            receive_.data(),
                            static_cast<int>(n),
                            MPI_BYTE,
                            mpi()));
    for (int r = 0; r < size(); ++r) {
      copy_bytes(bytes_of(output) + r * bytes + offset, receive_.data() + r * n, n);
    }
    offset += n;
  }
}

void ExchangeGroup::broadcast(at::Tensor& tensor, int root) {
  const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
  const int64_t chunk = slice_bytes() * size();
  for (int64_t offset = 0; offset < bytes;) {
    const int64_t n = std::min({chunk, bytes - offset, int64_t{1} << 30});
    mpi_check(MPI_Bcast(bytes_of(tensor) + offset, static_cast<int>(n), MPI_BYTE, root, mpi()));
    offset += n;
  }
}

void ExchangeGroup::all_to_all(const at::Tensor& input, at::Tensor& output) {
  const int64_t bytes = static_cast<int64_t>(input.nbytes()) / size();
  for (int64_t offset = 0; offset < bytes;) {
    const int64_t n = std::min(slice_bytes(), bytes - offset);
    reserve(n);
    for (int r = 0; r < size(); ++r) {
      copy_bytes(send_.data() + r * n, bytes_of(input) + r * bytes + offset, n);
    }
    exchange(n);
    for (int r = 0; r < size(); ++r) {
      copy_bytes(bytes_of(output) + r * bytes + offset, receive_.data() + r * n, n);
    }
    offset += n;
  }
}

}  // namespace

std::shared_ptr<GroupImpl> make_exchange_group(MPI_Comm comm,
                                               Identity identity,
                                               std::shared_ptr<Recorder> recorder,
                                               const MpiOptions& options) {
  return std::make_shared<ExchangeGroup>(comm, std::move(identity), std::move(recorder), options);
}

}  // namespace kamerton::comm
