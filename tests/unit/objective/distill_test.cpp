// SPDX-License-Identifier: Apache-2.0
// Oracle: the definitions in double precision, and finite differences through a model.
#include "kamerton/objective/distill.h"

#include <torch/csrc/autograd/autograd.h>

#include "kamerton/storage/safetensors.h"

#include "support/expect_error.h"
#include "support/padded_batch.h"
#include "support/policy.h"

namespace kamerton::objective {
namespace {

using test::max_difference;
using test::oracle_path;
using test::oracle_tensor;

at::Tensor random_log_p(int64_t rows, int64_t columns, int64_t shift) {
  const at::Tensor x = at::arange(shift, shift + rows * columns, at::kDouble).view({rows, columns});
  return at::log_softmax(3 * at::sin(x * 1.7), 1);
}

TEST(Divergence, EqualsItsDefinitionInDoublePrecision) {
  const at::Tensor s = random_log_p(3, 7, 0);
  const at::Tensor t = random_log_p(3, 7, 100);
  const auto sum_over = [&](const std::function<double(double, double)>& term, int64_t row) {
    double sum = 0;
    for (int64_t i = 0; i < 7; ++i) {
      sum += term(std::exp(s[row][i].item<double>()), std::exp(t[row][i].item<double>()));
    }
    return sum;
  };
  for (int64_t row = 0; row < 3; ++row) {
    const auto forward = [](double p, double q) { return q * std::log(q / p); };
    const auto reverse = [](double p, double q) { return p * std::log(p / q); };
    const auto jsd = [](double p, double q) {
      const double m = 0.3 * q + 0.7 * p;
      return 0.3 * q * std::log(q / m) + 0.7 * p * std::log(p / m);
    };
    EXPECT_NEAR(divergence(s, t, 0)[row].item<double>(), sum_over(forward, row), 1e-12);
    EXPECT_NEAR(divergence(s, t, 1)[row].item<double>(), sum_over(reverse, row), 1e-12);
    EXPECT_NEAR(divergence(s, t, 0.3)[row].item<double>(), sum_over(jsd, row), 1e-12);
  }
  EXPECT_LT(divergence(s, s, 0.5).abs().max().item<double>(), 1e-15);
}

TEST(Divergence, GradientsEqualFiniteDifferences) {
  const at::Tensor t = random_log_p(1, 6, 50);
  const at::Tensor logits = at::sin(at::arange(6, at::kDouble) * 2.3).unsqueeze(0);
  const at::Tensor ids = at::tensor({4, 1}, at::kLong).unsqueeze(0);
  for (const double beta : {0.0, 0.3, 1.0}) {
    for (const bool coarse : {false, true}) {
      const auto value = [&](const at::Tensor& z) {
        const at::Tensor s = at::log_softmax(z, 1);
        return coarse ? divergence(coarsen(s, ids), coarsen(t, ids), beta).sum()
                      : divergence(s, t, beta).sum();
      };
      at::Tensor z = logits.clone().requires_grad_(true);
      torch::autograd::backward({value(z)}, {});
      for (int64_t i = 0; i < 6; ++i) {
        at::Tensor up = logits.clone();
        at::Tensor down = logits.clone();
        up[0][i] += 1e-5;
        down[0][i] -= 1e-5;
        EXPECT_NEAR(
            z.grad()[0][i].item<double>(), (value(up) - value(down)).item<double>() / 2e-5, 1e-9);
      }
    }
  }
}

TEST(Divergence, OfFewTokensAndTheRestIsALowerBoundThatReachesTheWhole) {
  const at::Tensor s = random_log_p(4, 9, 3);
  const at::Tensor t = random_log_p(4, 9, 77);
  for (const double beta : {0.0, 0.4, 1.0}) {
    double before = 0;
    for (const int64_t k : {1, 3, 8}) {
      const at::Tensor ids = std::get<1>(at::topk(t, k, 1));
      const double part = divergence(coarsen(s, ids), coarsen(t, ids), beta).sum().item<double>();
      EXPECT_GE(part, before - 1e-12);
      before = part;
    }
    EXPECT_NEAR(before, divergence(s, t, beta).sum().item<double>(), 1e-9);  // 8 of 9 say it all
  }
}

data::Batch some_text() {
  const auto file =
      storage::SafetensorsFile::open(oracle_path("fixtures/preference/dpo.safetensors"));
  const at::Tensor ids_BT = oracle_tensor(file, "input_ids");
  const at::Tensor labels_BT =
      at::where(oracle_tensor(file, "completion_mask") == 1, ids_BT, data::kNoTarget);
  return test::flat_batch(ids_BT, oracle_tensor(file, "attention_mask"), labels_BT);
}

ObjectiveConfig config(double beta, double alpha) {
  ObjectiveConfig one{.method = "distill"};
  one.distill = {.teacher = "teacher", .beta = beta, .temperature = 1.5, .alpha = alpha};
  return one;
}

/// The same by whole logits and autograd.
TEST(Distillation, LossAndGradientsEqualWholeLogits) {
  KAMERTON_NEED_ORACLE("fixtures/training/lora_final");
  const auto student = test::make_policy();
  const auto teacher = test::make_decoder();
  teacher->load_whole();
  for (const auto& parameter : teacher->parameters()) {
    parameter->trainable = false;
    parameter->value.set_requires_grad(false);
  }
  const data::Batch batch = some_text();
  const Tokens tokens = to_tokens(batch);
  const at::Tensor rows = tokens.targets_N.ne(data::kNoTarget).nonzero().squeeze(1);
  const at::Tensor targets = tokens.targets_N.index_select(0, rows);
  const auto tensor_of = [&] {
    return student->find_parameter("model.layers.2.mlp.up_proj.weight");
  };
  for (const double beta : {0.0, 0.5, 1.0}) {
    Distillation objective(config(beta, 0.7), teacher.get(), nullptr);
    test::forget_gradients(*student);
    const at::Tensor loss = objective.loss(*student, batch, Shares::of(objective.counts(batch)));
    torch::autograd::backward({loss}, {});
    const at::Tensor gradient = tensor_of()->accumulator().clone();
    const double norm = test::gradient_norm(*student);

    test::forget_gradients(*student);
    const at::Tensor z = student->logits(student->forward(tokens.rows).index_select(0, rows));
    at::Tensor t;
    {
      const at::NoGradGuard no_grad;
      t = teacher->logits(teacher->forward(tokens.rows).index_select(0, rows));
    }
    const at::Tensor apart =
        divergence(at::log_softmax(z / 1.5, 1), at::log_softmax(t / 1.5, 1), beta).mean();
    const at::Tensor nll = -at::log_softmax(z, 1).gather(1, targets.unsqueeze(1)).mean();
    const at::Tensor expected = 0.7 * apart + 0.3 * nll;
    torch::autograd::backward({expected}, {});
    EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-5);
    EXPECT_LT(max_difference(gradient, tensor_of()->accumulator()),
              1e-4 * gradient.abs().max().item<double>() + 1e-7);
    EXPECT_NEAR(norm, test::gradient_norm(*student), 1e-4 * norm);
    const std::vector<MetricSum> metrics = objective.take_metrics();
    EXPECT_NEAR(metrics[0].sum / metrics[0].count, apart.item<double>(), 1e-5);
    EXPECT_NEAR(metrics[1].sum / metrics[1].count, -nll.item<double>(), 1e-5);
  }
}

TEST(Distillation, FromItselfCostsNothing) {
  KAMERTON_NEED_ORACLE("models/stories260K");
  const auto model = test::make_decoder();
  model->load_whole();
  const data::Batch batch = some_text();
  const at::NoGradGuard no_grad;
  for (const int64_t top_k : {0, 20}) {
    ObjectiveConfig one = config(0.5, 1.0);
    one.distill.top_k = top_k;
    Distillation objective(one, model.get(), nullptr);
    EXPECT_NEAR(objective.loss(*model, batch, Shares::of(objective.counts(batch))).item<double>(),
                0.0,
                1e-6);
  }
}

TEST(DistillConfig, RefusesWhatCannotBe) {
  ObjectiveConfig none{.method = "distill"};
  test::expect_error(core::ErrorKind::Config, {"teacher"}, [&] { validate(none); });
  ObjectiveConfig whole = config(0, 1);
  whole.distill.precompute = true;
  test::expect_error(core::ErrorKind::Config, {"precompute", "top_k"}, [&] { validate(whole); });
}

}  // namespace
}  // namespace kamerton::objective
