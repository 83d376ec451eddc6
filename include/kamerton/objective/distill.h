// SPDX-License-Identifier: Apache-2.0
// Learning from a larger model's distributions over the next token.
#pragma once

#include "kamerton/objective/config.h"
#include "kamerton/objective/objective.h"
#include "kamerton/objective/teacher_store.h"

namespace kamerton::objective {

/// Divergence of each row, [N], of log-probabilities [N, K] that each sum to one: KL(teacher ||
/// student) for beta 0, KL(student || teacher) for 1, between them the generalised Jensen-Shannon
/// divergence beta KL(teacher || m) + (1 - beta) KL(student || m), m = beta teacher + (1 - beta)
/// student (Agarwal et al. 2024, as TRL's GKDTrainer).
at::Tensor divergence(const at::Tensor& student_NK, const at::Tensor& teacher_NK, double beta);

/// Log-probabilities of the tokens ids_NK (int64), and in a last column of all others together:
/// [N, V] -> [N, K + 1].
at::Tensor coarsen(const at::Tensor& log_p_NV, const at::Tensor& ids_NK);

/// The mean over the step's targets of alpha times the divergence from the teacher, both at
/// `temperature`, plus 1 - alpha times the negative log-likelihood of the data. With top_k the
/// distributions are those over the teacher's likeliest tokens and the rest as one: a lower bound
/// of the divergence that needs little storage. Metrics: divergence, likelihood (per target).
class Distillation : public Objective {
 public:
  /// `teacher` may be null when all of its numbers are stored; both are not owned.
  /// ErrorKind::Config when the teacher's vocabulary does not fit.
  Distillation(const ObjectiveConfig& config,
               model::Decoder* teacher,
               const StoredTeachers* stored);

  std::vector<data::Batch> prepare(model::Decoder& model,
                                   std::vector<data::Batch> batches,
                                   const Phase& phase) override;
  at::Tensor loss(model::Decoder& model, const data::Batch& batch, const Shares& shares) override;
  std::vector<std::string> metric_names() const override;
  std::vector<MetricSum> take_metrics() override;

 private:
  at::Tensor part(const at::Tensor& student_NV,
                  const at::Tensor& teacher_NK,
                  const at::Tensor& ids_NK,
                  const at::Tensor& targets_N,
                  double share);
  at::Tensor live_loss(model::Decoder& model, const data::Batch& batch, double share);
  at::Tensor stored_loss(model::Decoder& model,
                         const data::Batch& batch,
                         const TeacherStore& store,
                         double share);

  DistillConfig config_;
  model::Decoder* teacher_;
  const StoredTeachers* stored_;
  Phase phase_;
  MetricSum divergence_, likelihood_;
};

}  // namespace kamerton::objective
