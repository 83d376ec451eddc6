// SPDX-License-Identifier: Apache-2.0
#include "task_vectors.h"

#include <ATen/ATen.h>

#include "kamerton/core/random.h"

namespace kamerton::tuning {
namespace {

/// Keeps the int(density * n) largest.
at::Tensor keep_largest(const at::Tensor& x, double density) {
  if (density >= 1) {
    return x;
  }
  const at::Tensor flat = x.reshape({-1});
  const auto kept = static_cast<int64_t>(density * static_cast<double>(x.numel()));
  const at::Tensor places = std::get<1>(flat.abs().topk(kept));
  return at::zeros_like(flat).index_copy_(0, places, flat.index_select(0, places)).view(x.sizes());
}

/// Drops each value with probability 1 - density; the others grow so that the mean stays.
at::Tensor drop(const at::Tensor& x, const TaskOptions& options, size_t task) {
  if (options.density >= 1) {
    return x;
  }
  const core::RandomStream random(options.seed, "dare:" + options.name, task);
  at::Tensor result = x.clone().contiguous();
  auto* data = result.mutable_data_ptr<float>();
  for (int64_t i = 0; i < result.numel(); ++i) {
    const bool kept = random.uniform(static_cast<uint64_t>(i)) < options.density;
    data[i] = kept ? static_cast<float>(data[i] / options.density) : 0.0F;
  }
  return result;
}

/// The mean of the values whose sign is the majority's, zeros not counted.
at::Tensor disjoint(const at::Tensor& all, const at::Tensor& weighted, bool by_frequency) {
  const at::Tensor sign = all.sign();
  const at::Tensor votes = (by_frequency ? sign : all).sum(0);
  const at::Tensor majority = at::where(votes.ge(0), 1.0, -1.0).to(all.scalar_type());
  const at::Tensor mask = sign.eq(majority).to(all.scalar_type());
  return (weighted * mask).sum(0) / mask.sum(0).clamp_min(1.0);
}

}  // namespace

at::Tensor combine_tasks(const std::vector<at::Tensor>& tensors,
                         const std::vector<double>& weights,
                         const TaskOptions& options) {
  const bool random = options.how.starts_with("dare");
  const bool prunes = options.how == "ties" || options.how == "magnitude_prune";
  std::vector<at::Tensor> kept;
  std::vector<at::Tensor> weighted;
  for (size_t i = 0; i < tensors.size(); ++i) {
    kept.push_back(random   ? drop(tensors[i], options, i)
                   : prunes ? keep_largest(tensors[i], options.density)
                            : tensors[i]);
    weighted.push_back(kept.back() * weights[i]);
  }
  const at::Tensor all_weighted = at::stack(weighted);
  return options.how == "ties" || options.how == "dare_ties"
             ? disjoint(at::stack(kept), all_weighted, options.by_frequency)
             : all_weighted.sum(0);
}

}  // namespace kamerton::tuning
