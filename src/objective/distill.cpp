// SPDX-License-Identifier: Apache-2.0
#include "kamerton/objective/distill.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/objective/rollout.h"

#include "documents.h"

namespace kamerton::objective {
namespace {

/// KL(p || q) of each row, of log-probabilities.
at::Tensor kl(const at::Tensor& log_p, const at::Tensor& log_q) {
  return (at::exp(log_p) * (log_p - log_q)).sum(1);
}

at::Tensor log_softmax(const at::Tensor& logits, double temperature) {
  return at::log_softmax(temperature == 1.0 ? logits : logits / temperature, 1);
}

}  // namespace

at::Tensor divergence(const at::Tensor& student_NK, const at::Tensor& teacher_NK, double beta) {
  if (beta == 0.0) {
    return kl(teacher_NK, student_NK);
  }
  if (beta == 1.0) {
    return kl(student_NK, teacher_NK);
  }
  const at::Tensor mixture_NK =
      at::logaddexp(student_NK + std::log1p(-beta), teacher_NK + std::log(beta));
  return beta * kl(teacher_NK, mixture_NK) + (1 - beta) * kl(student_NK, mixture_NK);
}

at::Tensor coarsen(const at::Tensor& log_p_NV, const at::Tensor& ids_NK) {
  const at::Tensor chosen_NK = log_p_NV.gather(1, ids_NK);
  // What is left may round to nothing or less: never below e^-30, never above the whole.
  const at::Tensor mass_N1 = at::exp(chosen_NK).sum(1, true);
  const at::Tensor rest_N1 = at::log(at::clamp(1 - mass_N1, 1e-13, 1.0));
  return at::cat({chosen_NK, rest_N1}, 1);
}

Distillation::Distillation(const ObjectiveConfig& config,
                           model::Decoder* teacher,
                           const StoredTeachers* stored)
    : config_(config.distill), teacher_(teacher), stored_(stored) {
  validate(config);
  if (teacher_ == nullptr && stored_ == nullptr) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = "objective.distill", .what = "no teacher was given"});
  }
}

std::vector<data::Batch> Distillation::prepare(model::Decoder& /*model*/,
                                               std::vector<data::Batch> batches,
                                               const Phase& phase) {
  phase_ = phase;
  return batches;
}

/// The loss of some rows, and what is reported of it. ids undefined: teacher_NK is over the whole
/// vocabulary.
at::Tensor Distillation::part(const at::Tensor& student_NV,
                              const at::Tensor& teacher_NK,
                              const at::Tensor& ids_NK,
                              const at::Tensor& targets_N,
                              double share) {
  const at::Tensor student = log_softmax(student_NV, config_.temperature);
  const at::Tensor apart =
      divergence(ids_NK.defined() ? coarsen(student, ids_NK) : student, teacher_NK, config_.beta);
  const at::Tensor nll =
      -at::log_softmax(student_NV, 1).gather(1, targets_N.unsqueeze(1)).squeeze(1);
  const auto rows = static_cast<double>(student_NV.size(0));
  divergence_.sum += apart.detach().sum().item<double>();
  divergence_.count += rows;
  likelihood_.sum -= nll.detach().sum().item<double>();
  likelihood_.count += rows;
  return share * (config_.alpha * apart.sum() + (1 - config_.alpha) * nll.sum());
}

at::Tensor Distillation::live_loss(model::Decoder& model, const data::Batch& batch, double share) {
  const Tokens tokens = to_tokens(batch, model.device());
  at::Tensor taught_ND;
  {
    const at::NoGradGuard no_grad;
    taught_ND = teacher_->forward(to_tokens(batch, teacher_->device()).rows);
  }
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  const at::Tensor rows_M = target_rows(batch).to(model.device());
  const int64_t common = std::min(model.config().vocab_size, teacher_->config().vocab_size);
  at::Tensor result;
  teacher_->with_logits([&](const tensor::LogitsOf& teacher_logits) {
    result = model.logits_loss(hidden_ND, rows_M, [&](const at::Tensor& student_MV, int64_t begin) {
      const at::Tensor rows = rows_M.narrow(0, begin, student_MV.size(0));
      at::Tensor teacher =
          log_softmax(teacher_logits(taught_ND.index_select(0, rows)).narrow(1, 0, common),
                      config_.temperature);
      at::Tensor ids;
      if (config_.top_k > 0 && config_.top_k < common) {
        ids = std::get<1>(at::topk(teacher, config_.top_k, 1));
        teacher = coarsen(teacher, ids);
      }
      return part(student_MV.narrow(1, 0, common),
                  teacher,
                  ids,
                  tokens.targets_N.index_select(0, rows),
                  share);
    });
  });
  return result;
}

at::Tensor Distillation::stored_loss(model::Decoder& model,
                                     const data::Batch& batch,
                                     const TeacherStore& store,
                                     double share) {
  const Tokens tokens = to_tokens(batch, model.device());
  std::vector<at::Tensor> ids, log_p;
  for (size_t d = 0; d < document_count(batch); ++d) {
    if (targets_of(batch, d) > 0) {
      TeacherStore::Rows rows = store.rows(batch.source_indices[d]);
      ids.push_back(std::move(rows.ids_MK));
      log_p.push_back(std::move(rows.log_p_MK));
    }
  }
  const at::Tensor hidden_ND = model.forward(tokens.rows);
  const at::Tensor rows_M = target_rows(batch).to(model.device());
  const at::Tensor ids_MK = ids.empty() ? at::empty({0, 1}, at::kLong) : at::cat(ids);
  const at::Tensor log_p_MK = log_p.empty() ? at::empty({0, 1}) : at::cat(log_p);
  return model.logits_loss(hidden_ND, rows_M, [&](const at::Tensor& student_MV, int64_t begin) {
    const int64_t n = student_MV.size(0);
    const at::Tensor chosen = log_p_MK.narrow(0, begin, n).to(student_MV.device());
    const at::Tensor rest = at::log(at::clamp(1 - at::exp(chosen).sum(1, true), 1e-13, 1.0));
    return part(student_MV,
                at::cat({chosen, rest}, 1),
                ids_MK.narrow(0, begin, n).to(student_MV.device()),
                tokens.targets_N.index_select(0, rows_M.narrow(0, begin, n)),
                share);
  });
}

at::Tensor Distillation::loss(model::Decoder& model,
                              const data::Batch& batch,
                              const Shares& shares) {
  const TeacherStore* store = stored_ == nullptr ? nullptr : stored_->of(phase_);
  return store != nullptr ? stored_loss(model, batch, *store, shares.target)
                          : live_loss(model, batch, shares.target);
}

std::vector<std::string> Distillation::metric_names() const {
  return {"divergence", "likelihood"};
}

std::vector<MetricSum> Distillation::take_metrics() {
  return {std::exchange(divergence_, {}), std::exchange(likelihood_, {})};
}

}  // namespace kamerton::objective
