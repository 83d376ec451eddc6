// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>

#include "kamerton/core/error.h"
#include "kamerton/objective/judge.h"
#include "kamerton/objective/score.h"

namespace kamerton::objective {
namespace {

class ModelJudge final : public Judge {
 public:
  ModelJudge(model::Decoder& model, int64_t rows) : model_(model), rows_(rows) {}

  std::vector<double> rewards(const std::vector<Answer>& answers) override {
    const at::NoGradGuard no_grad;
    std::vector<double> result;
    for (size_t begin = 0; begin < answers.size(); begin += static_cast<size_t>(rows_)) {
      data::Batch batch;
      for (size_t i = begin; i < std::min(begin + static_cast<size_t>(rows_), answers.size());
           ++i) {
        batch.append(sequence_of(answers[i]), answers[i].id);
      }
      const at::Tensor scores_D = sequence_scores(model_, batch).to(at::kCPU, at::kDouble);
      for (int64_t d = 0; d < scores_D.size(0); ++d) {
        result.push_back(scores_D[d].item<double>());
      }
    }
    return result;
  }

 private:
  static data::Example sequence_of(const Answer& answer) {
    data::Example example;
    for (const std::vector<int64_t>* ids : {&answer.prompt_ids, &answer.ids}) {
      for (const int64_t id : *ids) {
        example.tokens.push_back(static_cast<int32_t>(id));
      }
    }
    example.targets.assign(example.tokens.size(), data::kNoTarget);
    return example;
  }

  model::Decoder& model_;
  int64_t rows_;
};

}  // namespace

std::unique_ptr<Judge> make_model_judge(model::Decoder& model, int64_t rows) {
  if (!model.config().score_head) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "objective.rewards",
                       .what = "a reward model needs a score head",
                       .got = model.config().architecture,
                       .allowed = "a sequence classifier with one label",
                       .hint = "objective.method: reward makes one"});
  }
  return std::make_unique<ModelJudge>(model, rows);
}

}  // namespace kamerton::objective
