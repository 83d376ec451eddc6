// SPDX-License-Identifier: Apache-2.0
#include "kamerton/comm/group.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/core/error.h"

#include "group_impl.h"
#include "recorder.h"
#include "reduce.h"

namespace kamerton::comm {
namespace {

/// Tells the recorder of one collective, for as long as it lives.
class Watch {
 public:
  Watch(GroupImpl& impl, std::string_view op, int64_t bytes) : recorder_(impl.recorder().get()) {
    const uint64_t sequence = impl.next_sequence();
    if (recorder_ != nullptr) {
      const Identity& self = impl.identity();
      recorder_->enter({sequence, op, self.name, self.id, bytes});
    }
  }
  ~Watch() {
    if (recorder_ != nullptr) {
      recorder_->leave();
    }
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  Recorder* recorder_;
};

[[noreturn]] void refuse(const GroupImpl& impl,
                         std::string_view op,
                         std::string what,
                         std::string got,
                         std::string allowed) {
  const Identity& self = impl.identity();
  throw core::Error(
      core::ErrorKind::Comm,
      {.where = fmt::format("comm.{}", op),
       .what = fmt::format("{} (group {}, rank {} of {})", what, self.name, self.rank, self.size),
       .got = std::move(got),
       .allowed = std::move(allowed)});
}

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format(
      "[{}] {}", fmt::join(tensor.sizes().vec(), ", "), c10::toString(tensor.scalar_type()));
}

void check_tensor(const GroupImpl& impl,
                  std::string_view op,
                  std::string_view role,
                  const at::Tensor& tensor) {
  if (!tensor.defined()) {
    refuse(impl,
           op,
           fmt::format("the {} has no storage", role),
           "an undefined tensor",
           "a defined tensor");
  }
  if (!can_reduce(tensor.scalar_type(), tensor.scalar_type())) {
    refuse(impl,
           op,
           fmt::format("the {}'s dtype cannot travel", role),
           shape_text(tensor),
           "float, bfloat16, half, double, int64, int32, uint8");
  }
  if (!tensor.is_contiguous()) {
    refuse(impl,
           op,
           fmt::format("the {} is not contiguous", role),
           shape_text(tensor),
           "a contiguous tensor");
  }
  if (!impl.takes(tensor.device())) {
    refuse(impl,
           op,
           fmt::format("the {} lies on a device that this group does not reach", role),
           tensor.device().str(),
           "host tensors, or a group of the GPU plug-in");
  }
}

void check_pair(const GroupImpl& impl,
                std::string_view op,
                const at::Tensor& input,
                const at::Tensor& output,
                int64_t expected_output,
                bool may_widen) {
  check_tensor(impl, op, "input", input);
  check_tensor(impl, op, "output", output);
  const bool same = input.scalar_type() == output.scalar_type();
  if (!(same || (may_widen && can_reduce(input.scalar_type(), output.scalar_type())))) {
    refuse(impl, op, "input and output differ in dtype", shape_text(output), shape_text(input));
  }
  if (input.device() != output.device()) {
    refuse(impl,
           op,
           "input and output lie on different devices",
           output.device().str(),
           input.device().str());
  }
  if (output.numel() != expected_output) {
    refuse(impl,
           op,
           fmt::format("the output does not fit an input {}", shape_text(input)),
           shape_text(output),
           fmt::format("{} elements", expected_output));
  }
}

void check_divides(const GroupImpl& impl, std::string_view op, const at::Tensor& input) {
  check_tensor(impl, op, "input", input);
  if (input.numel() % impl.identity().size != 0) {
    refuse(impl,
           op,
           "the input does not divide into one slice per rank",
           shape_text(input),
           fmt::format("a multiple of {} elements", impl.identity().size));
  }
}

void check_root(const GroupImpl& impl, std::string_view op, int root) {
  if (root < 0 || root >= impl.identity().size) {
    refuse(impl,
           op,
           "no such root",
           std::to_string(root),
           fmt::format("0 ... {}", impl.identity().size - 1));
  }
}

template <class T>
at::Tensor view_of(const T* values, int64_t count) {
  return at::from_blob(const_cast<T*>(values), {count}, c10::CppTypeToScalarType<T>::value);
}

template <class T>
T reduce_value(const Group& group, T value, Reduce op) {
  at::Tensor tensor = view_of(&value, 1);
  group.all_reduce(tensor, op);
  return value;
}

template <class T>
std::vector<T> gather_values(const Group& group, T value) {
  std::vector<T> all(static_cast<size_t>(group.size()));
  at::Tensor output = view_of(all.data(), group.size());
  group.all_gather(view_of(&value, 1), output);
  return all;
}

constexpr int64_t kPaddedGatherBytes = 1 << 20;

}  // namespace

Group::Group() : impl_(make_solo_group({})) {}
Group::Group(std::shared_ptr<GroupImpl> impl) : impl_(std::move(impl)) {}

int Group::rank() const {
  return impl_->identity().rank;
}
int Group::size() const {
  return impl_->identity().size;
}
const std::string& Group::name() const {
  return impl_->identity().name;
}

void Group::barrier() const {
  const Watch watch(*impl_, "barrier", 0);
  impl_->barrier();
}

void Group::all_reduce(at::Tensor& tensor, Reduce op) const {
  check_tensor(*impl_, "all_reduce", "tensor", tensor);
  const Watch watch(*impl_, "all_reduce", static_cast<int64_t>(tensor.nbytes()));
  impl_->all_reduce(tensor, op);
}

void Group::reduce_scatter(const at::Tensor& input, at::Tensor& output, Reduce op) const {
  check_divides(*impl_, "reduce_scatter", input);
  check_pair(*impl_, "reduce_scatter", input, output, input.numel() / size(), true);
  const Watch watch(*impl_, "reduce_scatter", static_cast<int64_t>(input.nbytes()));
  impl_->reduce_scatter(input, output, op);
}

void Group::all_gather(const at::Tensor& input, at::Tensor& output) const {
  check_tensor(*impl_, "all_gather", "input", input);
  check_pair(*impl_, "all_gather", input, output, input.numel() * size(), false);
  const Watch watch(*impl_, "all_gather", static_cast<int64_t>(output.nbytes()));
  impl_->all_gather(input, output);
}

Work Group::all_gather_async(const at::Tensor& input, at::Tensor& output) const {
  check_tensor(*impl_, "all_gather", "input", input);
  check_pair(*impl_, "all_gather", input, output, input.numel() * size(), false);
  const Watch watch(*impl_, "all_gather", static_cast<int64_t>(output.nbytes()));
  return impl_->all_gather_async(input, output);
}

void Group::broadcast(at::Tensor& tensor, int root) const {
  check_tensor(*impl_, "broadcast", "tensor", tensor);
  check_root(*impl_, "broadcast", root);
  const Watch watch(*impl_, "broadcast", static_cast<int64_t>(tensor.nbytes()));
  impl_->broadcast(tensor, root);
}

void Group::all_to_all(const at::Tensor& input, at::Tensor& output) const {
  check_divides(*impl_, "all_to_all", input);
  check_pair(*impl_, "all_to_all", input, output, input.numel(), false);
  const Watch watch(*impl_, "all_to_all", static_cast<int64_t>(input.nbytes()));
  impl_->all_to_all(input, output);
}

Group Group::split(int color, int key, const std::string& name) const {
  if (color < 0) {
    refuse(*impl_, "split", "a color is negative", std::to_string(color), "0 or more");
  }
  const Watch watch(*impl_, "split", 0);
  return Group(impl_->split(color, key, name));
}

int64_t Group::sum(int64_t value) const {
  return reduce_value(*this, value, Reduce::Sum);
}
int64_t Group::max(int64_t value) const {
  return reduce_value(*this, value, Reduce::Max);
}
int64_t Group::min(int64_t value) const {
  return reduce_value(*this, value, Reduce::Min);
}
double Group::sum(double value) const {
  return reduce_value(*this, value, Reduce::Sum);
}
double Group::max(double value) const {
  return reduce_value(*this, value, Reduce::Max);
}
bool Group::any(bool value) const {
  return max(static_cast<int64_t>(value ? 1 : 0)) != 0;
}

std::vector<int64_t> Group::all_gather(int64_t value) const {
  return gather_values(*this, value);
}
std::vector<double> Group::all_gather(double value) const {
  return gather_values(*this, value);
}

std::vector<std::string> Group::all_gather(std::string_view bytes) const {
  const std::vector<int64_t> lengths = all_gather(static_cast<int64_t>(bytes.size()));
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  std::vector<std::string> all(lengths.size());
  if (longest * size() > kPaddedGatherBytes) {  // long and uneven: no padding, one broadcast a rank
    for (int r = 0; r < size(); ++r) {
      all[r] = broadcast(bytes, r);
    }
    return all;
  }
  std::vector<uint8_t> mine(static_cast<size_t>(longest));
  std::vector<uint8_t> table(static_cast<size_t>(longest * size()));
  std::copy(bytes.begin(), bytes.end(), mine.begin());
  at::Tensor output = view_of(table.data(), longest * size());
  all_gather(view_of(mine.data(), longest), output);
  for (int r = 0; r < size(); ++r) {
    all[r].assign(reinterpret_cast<const char*>(table.data()) + longest * r,
                  static_cast<size_t>(lengths[r]));
  }
  return all;
}

std::string Group::broadcast(std::string_view bytes, int root) const {
  check_root(*impl_, "broadcast", root);
  int64_t length = static_cast<int64_t>(bytes.size());
  at::Tensor length_tensor = view_of(&length, 1);
  broadcast(length_tensor, root);
  std::string text =
      rank() == root ? std::string(bytes) : std::string(static_cast<size_t>(length), '\0');
  at::Tensor content = view_of(reinterpret_cast<const uint8_t*>(text.data()), length);
  broadcast(content, root);
  return text;
}

uint64_t GroupImpl::child_id(int color) {
  // Every member has made the same number of splits before, so the count tells groups apart.
  const std::string path = fmt::format("{}/{}/{}", identity_.id, ++splits_, color);
  return signature(path, 0);
}

uint64_t signature(std::string_view op, int64_t bytes, int64_t detail) {
  uint64_t hash = 14695981039346656037ull;  // FNV-1a
  const auto mix = [&hash](uint64_t byte) { hash = (hash ^ byte) * 1099511628211ull; };
  for (const char c : op) {
    mix(static_cast<unsigned char>(c));
  }
  for (int shift = 0; shift < 64; shift += 8) {
    mix(static_cast<uint64_t>(bytes) >> shift & 255);
    mix(static_cast<uint64_t>(detail) >> shift & 255);
  }
  return hash | 1;
}

}  // namespace kamerton::comm
