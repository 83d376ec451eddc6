// SPDX-License-Identifier: Apache-2.0
// Between the vectors that travel and the parameters of a group: every rank reads and writes its
// own slices.
#include <cmath>
#include <filesystem>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"

#include "site_work_impl.h"

namespace kamerton::cli {
namespace {

using federation::kBlock;
using federation::RangeFile;

constexpr char kModel[] = "model.";

/// "model.X" -> X; "" for other keys.
std::string model_name(const std::string& key) {
  return key.starts_with(kModel) ? key.substr(sizeof(kModel) - 1) : std::string();
}

/// "exp_avg_sq.X" -> {"exp_avg_sq", X}.
std::pair<std::string, std::string> moment_name(const std::string& key) {
  const size_t dot = key.find('.');
  return {key.substr(0, dot), key.substr(dot + 1)};
}

at::Tensor read_values(const RangeFile& file, int64_t at, int64_t count) {
  at::Tensor values = at::empty({count}, at::kFloat);
  file.read(at, std::span<float>(values.mutable_data_ptr<float>(), static_cast<size_t>(count)));
  return values;
}

void write_values(RangeFile& file, int64_t at, const at::Tensor& values) {
  const at::Tensor host = values.to(at::kCPU, at::kFloat).contiguous();
  file.write(
      at, std::span<const float>(host.const_data_ptr<float>(), static_cast<size_t>(host.numel())));
}

/// The key of a site's random rounding in a round.
uint64_t noise_seed(const RunConfig& config, const std::string& site, int64_t round) {
  const storage::Digest digest =
      storage::digest_of(fmt::format("{}|{}|{}", config.train.seed, site, round));
  uint64_t seed = 0;
  std::memcpy(&seed, digest.data(), sizeof(seed));
  return seed;
}

}  // namespace

void Workplace::Impl::fill_start(const std::string& name,
                                 int64_t offset,
                                 const RangeFile& model,
                                 at::Tensor out) const {
  const int64_t at = layout.offset(name);
  const bool whole = absolute() && model && !stacks();
  if (at >= 0 && whole) {
    out.copy_(read_values(model, at + offset, out.numel()));
    return;
  }
  start(*parameters_by_name.at(name), offset, out);
  if (at >= 0 && model && !stacks()) {
    out.add_(read_values(model, at + offset, out.numel()).to(out.device()));
  }
}

void Workplace::Impl::fill_slice(const optim::StateSlice& slice,
                                 const RangeFile& model,
                                 const OpenSite* site,
                                 int64_t before) {
  at::Tensor out = slice.data;
  const std::string name = model_name(slice.key);
  if (name.empty()) {
    const auto [moment, parameter] = moment_name(slice.key);
    const RangeFile kept = site != nullptr && keeps_moments()
                               ? site->state.open(before, moment, everything.size())
                               : RangeFile();
    if (kept) {
      const int64_t at = everything.offset(parameter) + slice.offset;
      out.copy_(read_values(kept, at, out.numel()));
    } else {
      out.zero_();
    }
    return;
  }
  fill_start(name, slice.offset, model, out);
  if (site != nullptr) {
    cut_rank(*site, name, slice.offset, out);
  }
  if (site != nullptr && layout.offset(name) < 0) {
    if (const RangeFile own = site->state.open(before, "personal", everything.size())) {
      out.copy_(read_values(own, everything.offset(name) + slice.offset, out.numel()));
    }
  }
}

void Workplace::Impl::cut_rank(const OpenSite& site,
                               const std::string& name,
                               int64_t offset,
                               at::Tensor values) const {
  const bool a = name.ends_with(".lora_A.weight");
  const bool b = name.ends_with(".lora_B.weight");
  const int64_t most = config.tuning.lora.r;
  if (site.rank == 0 || site.rank >= most || (!a && !b)) {
    return;
  }
  const at::Tensor places =
      at::arange(offset, offset + values.numel(), at::TensorOptions(at::kLong));
  const int64_t in = parameters_by_name.at(name)->shape[1];
  const at::Tensor rows = a ? places.floor_divide(in) : places.remainder(most);
  values.masked_fill_(rows.ge(site.rank).to(values.device()), 0);
}

void Workplace::Impl::load(const RangeFile& model, const OpenSite* site, int64_t before) {
  const at::NoGradGuard no_grad;
  for (const optim::StateSlice& slice : parameters->slices_to_load()) {
    fill_slice(slice, model, site, before);
  }
  parameters->after_load();
}

/// W += scale sum_k p_k B_k A_k on this rank's rows of frozen weights, stack by stack.
void Workplace::Impl::merge_stacks(const std::vector<ReceivedModel>& models) {
  const at::NoGradGuard no_grad;
  const tuning::LoraConfig& lora = config.tuning.lora;
  const auto r = static_cast<double>(lora.r);
  const double scale = lora.use_rslora ? lora.alpha / std::sqrt(r) : lora.alpha / r;
  std::vector<optim::StateSlice> slices = parameters->slices_to_load(true);
  for (; merged_stacks < models.size(); ++merged_stacks) {
    const ReceivedModel& received = models[merged_stacks];
    const RangeFile stack = RangeFile::open(received.file, 4 * received.facts.elements);
    for (const optim::StateSlice& slice : slices) {
      const std::string name = model_name(slice.key);
      const std::string module = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : "";
      const int64_t a_at = layout.offset(module + ".lora_A.weight");
      const int64_t b_at = layout.offset(module + ".lora_B.weight");
      if (module.empty() || a_at < 0 || b_at < 0) {
        continue;
      }
      const model::Linear& linear = *tuned.decoder->find_linear(module);
      at::Tensor change = at::zeros({linear.out_features, linear.in_features}, at::kFloat);
      for (size_t k = 0; k < received.facts.shares.size(); ++k) {
        const int64_t base = static_cast<int64_t>(k) * layout.size();
        const at::Tensor a = read_values(stack, base + a_at, lora.r * linear.in_features);
        const at::Tensor b = read_values(stack, base + b_at, linear.out_features * lora.r);
        change.add_(
            b.view({linear.out_features, lora.r}).matmul(a.view({lora.r, linear.in_features})),
            scale * received.facts.shares[k]);
      }
      const at::Tensor flat = (linear.transposed ? change.t().contiguous() : change).view({-1});
      at::Tensor values = slice.data;
      const at::Tensor sum =
          values.to(at::kCPU, at::kFloat) + flat.narrow(0, slice.offset, values.numel());
      values.copy_(sum);
    }
  }
  parameters->after_load(true);
}

void Workplace::Impl::write_control(const OpenSite& site,
                                    const federation::Task& task,
                                    int64_t before,
                                    const RangeFile& model,
                                    int64_t at,
                                    const at::Tensor& delta,
                                    int64_t updates,
                                    RangeFile& scratch) {
  // c_k+ - c_k = -c + (x - y) / (K lr), option II.
  const double step = static_cast<double>(updates) * config.optim.lr;
  at::Tensor change = delta.div(-step);
  if (model) {
    change.sub_(read_values(model, layout.size() + at, delta.numel()));
  }
  write_values(scratch, layout.size() + at, change);
  if (const RangeFile own = site.state.open(before, "control", layout.size())) {
    change.add_(read_values(own, at, delta.numel()));
  }
  RangeFile next = site.state.create(task.round, "control", layout.size());
  write_values(next, at, change);
}

double Workplace::Impl::write_slices(const OpenSite& site,
                                     const federation::Task& task,
                                     int64_t before,
                                     const RangeFile& model,
                                     int64_t updates,
                                     RangeFile& scratch) {
  const at::NoGradGuard no_grad;
  double squares = 0;
  for (const optim::StateSlice& slice : parameters->owned_slices()) {
    const std::string name = model_name(slice.key);
    if (name.empty()) {
      const auto [moment, parameter] = moment_name(slice.key);
      if (keeps_moments()) {
        RangeFile file = site.state.create(task.round, moment, everything.size());
        write_values(file, everything.offset(parameter) + slice.offset, slice.data);
      }
      continue;
    }
    if (layout.offset(name) < 0) {
      RangeFile file = site.state.create(task.round, "personal", everything.size());
      write_values(file, everything.offset(name) + slice.offset, slice.data);
      continue;
    }
    const int64_t at = layout.offset(name) + slice.offset;
    at::Tensor delta = slice.data.to(at::kCPU, at::kFloat).clone();
    if (!absolute()) {
      at::Tensor x = at::empty({delta.numel()}, at::kFloat);
      fill_start(name, slice.offset, model, x);
      delta.sub_(x);
    }
    write_values(scratch, at, delta);
    squares += delta.to(at::kDouble).square().sum().item<double>();
    if (config.federation.method == "scaffold") {
      write_control(site, task, before, model, at, delta, updates, scratch);
    }
  }
  return squares;
}

void Workplace::Impl::encode(const OpenSite& site,
                             const federation::Task& task,
                             int64_t before,
                             const UpdateScale& scale,
                             const RangeFile& scratch,
                             RangeFile& update) const {
  const federation::UpdateConfig& how = config.federation.update;
  const auto codec = federation::make_codec(
      config.federation, layout.total(), noise_seed(config, site.place.name, task.round));
  const bool feeds_back = how.error_feedback && codec->lossy() && how.encoding != "ring32";
  const int64_t numbers = layout.total();
  const int64_t total = federation::travelling(config.federation, numbers);
  const RangeFile old_error = feeds_back ? site.state.open(before, "error", total) : RangeFile();
  RangeFile new_error = feeds_back ? site.state.create(task.round, "error", total) : RangeFile();
  const int64_t blocks = (total + kBlock - 1) / kBlock;
  const int64_t first = blocks * ranks.rank() / ranks.size();
  const int64_t last = blocks * (ranks.rank() + 1) / ranks.size();
  std::vector<std::byte> bytes;
  for (int64_t block = first; block < last; ++block) {
    const int64_t at = block * kBlock;
    const int64_t count = std::min(kBlock, total - at);
    at::Tensor values = at::zeros({count}, at::kFloat);
    const int64_t present = std::min(count, numbers - at);
    if (scale.values != 0) {
      values.narrow(0, 0, present).copy_(read_values(scratch, at, present)).mul_(scale.values);
    }
    if (present < count) {
      values[present] = scale.weight * how.ring_range;
    }
    if (old_error) {
      values.add_(read_values(old_error, at, count));
    }
    const std::span<float> span(values.mutable_data_ptr<float>(), static_cast<size_t>(count));
    bytes.resize(static_cast<size_t>(codec->block_bytes(count)));
    codec->encode(span, block, bytes);
    site.privacy->hide(block, bytes);
    update.write(federation::encoded_offset(*codec, block), std::span<const std::byte>(bytes));
    if (feeds_back) {
      std::vector<float> sent(span.size());
      codec->decode(bytes, sent);
      for (size_t i = 0; i < sent.size(); ++i) {
        span[i] -= sent[i];
      }
      new_error.write(at, std::span<const float>(span));
    }
  }
}

}  // namespace kamerton::cli
