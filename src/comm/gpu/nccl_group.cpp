// SPDX-License-Identifier: Apache-2.0
// Device tensors. NCCL moves slices; sums are taken on the device in rank order, 16-bit types in
// fp32 (the order of NCCL's own reductions depends on its algorithm): the same bits as every host
// backend, at reduce-scatter's traffic.
#include "nccl_group.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>

#include "device_watch.h"
#include "nccl_check.h"
#include "nccl_comm.h"

namespace kamerton::comm {
namespace {

constexpr int64_t kChunkBytes = int64_t{64} << 20;  // of the buffer that receives the peers' slices

std::byte* address(const at::Tensor& tensor, int64_t offset_bytes = 0) {
  return static_cast<std::byte*>(const_cast<void*>(tensor.const_data_ptr())) + offset_bytes;
}

cudaEvent_t make_event() {
  cudaEvent_t event = nullptr;
  cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return event;
}

/// Makes `later` wait for what `earlier` holds now.
void order(cudaStream_t earlier, cudaStream_t later) {
  cudaEvent_t event = make_event();
  cuda_check(cudaEventRecord(event, earlier));
  cuda_check(cudaStreamWaitEvent(later, event, 0));
  cuda_check(cudaEventDestroy(event));  // freed by CUDA once it has happened
}

/// The tensors stay referenced until wait(): the caching allocator cannot give them to others
/// meanwhile.
class DeviceWork final : public Work::Impl {
 public:
  DeviceWork(cudaStream_t stream, at::Tensor input, at::Tensor output)
      : stream_(stream), input_(std::move(input)), output_(std::move(output)), done_(make_event()) {
    cuda_check(cudaEventRecord(done_, stream_));
  }
  ~DeviceWork() override { cudaEventDestroy(done_); }
  void wait() override {
    cuda_check(cudaStreamWaitEvent(c10::cuda::getCurrentCUDAStream(), done_, 0));
  }

 private:
  cudaStream_t stream_;
  at::Tensor input_, output_;
  cudaEvent_t done_;
};

class NcclGroup final : public GroupImpl {
 public:
  NcclGroup(std::shared_ptr<GroupImpl> host, double deadline_s)
      : GroupImpl(host->identity(), host->recorder()),
        host_(std::move(host)),
        deadline_s_(deadline_s),
        reduce_(std::make_shared<NcclComm>(*host_, deadline_s)),
        gather_(std::make_shared<NcclComm>(*host_, deadline_s)),
        gather_stream_(c10::cuda::getStreamFromPool(true)),
        watch_({reduce_, gather_}, recorder(), deadline_s) {}

  bool takes(c10::Device device) const override { return device.is_cuda() || host_->takes(device); }
  void barrier() override {
    cuda_check(cudaStreamSynchronize(stream()));
    host_->barrier();
  }
  void all_reduce(at::Tensor& tensor, Reduce op) override;
  void reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) override;
  void all_gather(const at::Tensor& input, at::Tensor& output) override;
  Work all_gather_async(const at::Tensor& input, at::Tensor& output) override;
  void broadcast(at::Tensor& tensor, int root) override;
  void all_to_all(const at::Tensor& input, at::Tensor& output) override;
  std::shared_ptr<GroupImpl> split(int color, int key, const std::string& name) override {
    return make_nccl_group(host_->split(color, key, name), deadline_s_);
  }

 private:
  int rank() const { return identity().rank; }
  int size() const { return identity().size; }
  static cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream(); }
  void watch(cudaStream_t where, const char* op) {
    watch_.add(where, fmt::format("{} of group {}", op, identity().name));
  }
  /// Sends `bytes` at input + r * pitch to rank r, receives the peers' into output + r * bytes.
  void exchange(const std::byte* input,
                int64_t pitch,
                std::byte* output,
                int64_t output_pitch,
                int64_t bytes);
  /// Reduces [size, n] in rank order.
  static at::Tensor reduce_rows(const at::Tensor& rows, Reduce op);

  std::shared_ptr<GroupImpl> host_;
  double deadline_s_;
  std::shared_ptr<NcclComm> reduce_,
      gather_;  // two: NCCL runs one communicator's calls in launch order
  c10::cuda::CUDAStream gather_stream_;
  DeviceWatch watch_;
};

void NcclGroup::exchange(
    const std::byte* input, int64_t pitch, std::byte* output, int64_t output_pitch, int64_t bytes) {
  nccl_check(ncclGroupStart());
  for (int r = 0; r < size(); ++r) {
    nccl_check(ncclSend(
        input + r * pitch, static_cast<size_t>(bytes), ncclUint8, r, reduce_->get(), stream()));
    nccl_check(ncclRecv(output + r * output_pitch,
                        static_cast<size_t>(bytes),
                        ncclUint8,
                        r,
                        reduce_->get(),
                        stream()));
  }
  reduce_->settle(ncclGroupEnd());
}

at::Tensor NcclGroup::reduce_rows(const at::Tensor& rows, Reduce op) {
  const bool half = rows.scalar_type() == at::kBFloat16 || rows.scalar_type() == at::kHalf;
  at::Tensor total = rows[0].to(half ? at::kFloat : rows.scalar_type(), false, true);
  for (int64_t r = 1; r < rows.size(0); ++r) {
    if (op == Reduce::Sum) {
      total.add_(rows[r]);  // mixed: computed in fp32
    } else {
      const at::Tensor next = rows[r].to(total.scalar_type());
      total = op == Reduce::Max ? at::maximum(total, next) : at::minimum(total, next);
    }
  }
  return total;
}

void NcclGroup::reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) {
  if (input.is_cpu()) {
    return host_->reduce_scatter(input, output, op);
  }
  const at::NoGradGuard no_grad;
  const int64_t width = input.element_size();
  const int64_t count = output.numel();
  const int64_t chunk = std::max<int64_t>(1, kChunkBytes / width / size());
  at::Tensor flat = output.view(-1);
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t n = std::min(chunk, count - begin);
    const at::Tensor rows = at::empty({size(), n}, input.options());
    exchange(address(input, begin * width), count * width, address(rows), n * width, n * width);
    flat.narrow(0, begin, n).copy_(reduce_rows(rows, op));
  }
  watch(stream(), "reduce_scatter");
}

void NcclGroup::all_reduce(at::Tensor& tensor, Reduce op) {
  if (tensor.is_cpu()) {
    return host_->all_reduce(tensor, op);
  }
  const at::NoGradGuard no_grad;
  const int64_t count = tensor.numel();
  const int64_t chunk = std::max<int64_t>(1, kChunkBytes / tensor.element_size() / size()) * size();
  at::Tensor flat = tensor.view(-1);
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t n = std::min(chunk, count - begin);
    const int64_t slice = (n + size() - 1) / size();
    at::Tensor padded = at::zeros({slice * size()}, tensor.options());
    padded.narrow(0, 0, n).copy_(flat.narrow(0, begin, n));
    at::Tensor own = at::empty({slice}, tensor.options());
    reduce_scatter(padded, own, op);
    const int64_t bytes = slice * tensor.element_size();
    reduce_->settle(ncclAllGather(address(own),
                                  address(padded),
                                  static_cast<size_t>(bytes),
                                  ncclUint8,
                                  reduce_->get(),
                                  stream()));
    flat.narrow(0, begin, n).copy_(padded.narrow(0, 0, n));
  }
  watch(stream(), "all_reduce");
}

void NcclGroup::all_gather(const at::Tensor& input, at::Tensor& output) {
  all_gather_async(input, output).wait();
}

Work NcclGroup::all_gather_async(const at::Tensor& input, at::Tensor& output) {
  if (input.is_cpu()) {
    return host_->all_gather_async(input, output);
  }
  order(stream(), gather_stream_);
  gather_->settle(ncclAllGather(
      address(input), address(output), input.nbytes(), ncclUint8, gather_->get(), gather_stream_));
  watch(gather_stream_, "all_gather");
  return Work(std::make_shared<DeviceWork>(gather_stream_, input, output));
}

void NcclGroup::broadcast(at::Tensor& tensor, int root) {
  if (tensor.is_cpu()) {
    return host_->broadcast(tensor, root);
  }
  reduce_->settle(ncclBroadcast(address(tensor),
                                address(tensor),
                                tensor.nbytes(),
                                ncclUint8,
                                root,
                                reduce_->get(),
                                stream()));
  watch(stream(), "broadcast");
}

void NcclGroup::all_to_all(const at::Tensor& input, at::Tensor& output) {
  if (input.is_cpu()) {
    return host_->all_to_all(input, output);
  }
  const int64_t bytes = static_cast<int64_t>(input.nbytes()) / size();
  exchange(address(input), bytes, address(output), bytes, bytes);
  watch(stream(), "all_to_all");
}

}  // namespace

std::shared_ptr<GroupImpl> make_nccl_group(std::shared_ptr<GroupImpl> host, double deadline_s) {
  return std::make_shared<NcclGroup>(std::move(host), deadline_s);
}

}  // namespace kamerton::comm
