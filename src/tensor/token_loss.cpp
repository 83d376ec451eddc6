// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/token_loss.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/tensor/linear.h"

#include "device_ops.h"
#include "node.h"
#include "raw.h"

namespace kamerton::tensor {
namespace {

constexpr int64_t kChunkBytes = int64_t{48} << 20;  // of fp32 logits

int64_t chunk_rows_for(int64_t vocab, int64_t wished, const at::Tensor& hidden) {
  if (wished > 0) {
    return wished;
  }
  if (!hidden.is_cpu()) {
    return std::clamp<int64_t>(device::kLossChunkBytes / (vocab * 4) / 128 * 128, 128, 8192);
  }
  return std::clamp<int64_t>(kChunkBytes / (vocab * 4) / 32 * 32, 32, 1024);
}

/// Which rows have a target, and what it is.
struct Selection {
  at::Tensor rows;     // int64 [M]; undefined: all rows
  at::Tensor targets;  // int64 [M], contiguous

  int64_t count() const { return targets.size(0); }
  at::Tensor pick(const at::Tensor& x, int64_t begin, int64_t n) const {
    return rows.defined() ? x.index_select(0, rows.narrow(0, begin, n)) : x.narrow(0, begin, n);
  }
  void put(at::Tensor& into, int64_t begin, const at::Tensor& values) const {
    if (rows.defined()) {
      into.index_copy_(0, rows.narrow(0, begin, values.size(0)), values);
    } else {
      into.narrow(0, begin, values.size(0)).copy_(values);
    }
  }
};

void check_targets(const at::Tensor& targets, int64_t vocab) {
  if (targets.numel() == 0) {
    return;
  }
  const auto [low, high] = at::aminmax(targets);
  const int64_t smallest = low.item<int64_t>();
  const int64_t largest = high.item<int64_t>();
  if (smallest < 0 || largest >= vocab) {
    throw core::Error(
        core::ErrorKind::Data,
        {.where = "tensor.token_loss",
         .what = "a target token is outside the vocabulary",
         .got = fmt::format("id {}", smallest < 0 ? smallest : largest),
         .allowed = fmt::format("0 to {}, or {} for no target", vocab - 1, kIgnoredTarget),
         .hint = "a tokenizer that belongs to the model"});
  }
}

Selection select_rows(const at::Tensor& targets_N, int64_t vocab) {
  const at::Tensor has_target = targets_N.ne(kIgnoredTarget);
  Selection selection;
  if (!has_target.all().item<bool>()) {
    selection.rows = has_target.nonzero().squeeze(1);
    selection.targets = targets_N.index_select(0, selection.rows);
  } else {
    selection.targets = targets_N.contiguous();
  }
  check_targets(selection.targets, vocab);
  return selection;
}

/// What one chunk of logits is turned into.
struct ChunkWork {
  const int64_t* targets;
  const float* coefficients;  // of the gradient, a row
  float* nll;
  uint8_t* correct;  // null: not asked
  bool gradient;
  const TokenLossOptions* options;
};

/// Losses of the rows; the logits become their gradient.
void run_chunk_cpu(at::Tensor& logits, const ChunkWork& work) {
  const int64_t vocab = logits.size(1);
  at::parallel_for(0, logits.size(0), 1, [&](int64_t begin, int64_t end) {
    with_element(logits, [&](auto element) {
      using T = decltype(element);
      std::vector<float> scratch;
      if (sizeof(T) == 2 || work.options->soft_cap > 0) {
        scratch.resize(static_cast<size_t>(2 * vocab));
      }
      T* rows = write_ptr<T>(logits);
      for (int64_t i = begin; i < end; ++i) {
        const simd::LossRow row{vocab,
                                work.targets[i],
                                work.gradient ? work.coefficients[i] : 0.0f,
                                static_cast<float>(work.options->logit_scale),
                                static_cast<float>(work.options->soft_cap),
                                work.gradient,
                                work.correct != nullptr};
        const simd::LossResult result = simd::loss_row(rows + i * vocab, row, scratch.data());
        work.nll[i] = result.nll;
        if (work.correct != nullptr) {
          work.correct[i] = result.correct;
        }
      }
    });
  });
}

/// Goes over the selected rows chunk by chunk.
class HeadPass {
 public:
  HeadPass(const at::Tensor& hidden,
           const ParameterPtr& head,
           const Selection& selection,
           const TokenLossOptions& options)
      : hidden_(hidden),
        head_(head),
        selection_(selection),
        options_(options),
        targets_(selection.targets),
        nll(at::empty({selection.count()}, hidden.options().dtype(at::kFloat))),
        correct(options.count_correct
                    ? at::zeros({selection.count()}, hidden.options().dtype(at::kByte))
                    : at::Tensor()) {}

  /// coefficients (fp32 [M], undefined: losses only) multiply the gradient of -log p. Fills
  /// dhidden (zeros [N, D], undefined: not wanted) and the head's accumulator when it is trainable.
  /// Leaves nll and correct on the CPU: one transfer for all chunks.
  void run(const at::Tensor& coefficients, at::Tensor dhidden) {
    const at::NoGradGuard no_grad;
    weight_ = prepared_operand(head_->value.detach());
    const at::Tensor factors =
        coefficients.defined() ? coefficients.to(hidden_.device()) : at::Tensor();
    const int64_t total = selection_.count();
    const int64_t step = chunk_rows_for(head_->shape[0], options_.chunk_rows, hidden_);
    for (int64_t begin = 0; begin < total; begin += step) {
      chunk(begin, std::min(step, total - begin), factors, dhidden);
    }
    nll = nll.to(at::kCPU);
    correct = correct.defined() ? correct.to(at::kCPU) : correct;
  }

 private:
  void chunk(int64_t begin, int64_t n, const at::Tensor& coefficients, at::Tensor& dhidden) {
    const at::Tensor rows = selection_.pick(hidden_, begin, n);
    at::Tensor logits = product_transposed(rows.to(weight_.scalar_type()), weight_);
    const bool gradient = coefficients.defined();
    has_kernels(logits) ? losses_cpu(logits, begin, coefficients)
                        : losses_device(logits, begin, coefficients);
    if (!gradient) {
      return;
    }
    if (dhidden.defined()) {
      selection_.put(dhidden, begin, product(logits, weight_).to(dhidden.scalar_type()));
    }
    if (head_->trainable) {
      at::Tensor target = head_->accumulator();
      add_outer_product(target, logits, rows.to(logits.scalar_type()));
    }
  }

  void losses_cpu(at::Tensor& logits, int64_t begin, const at::Tensor& coefficients) {
    const bool gradient = coefficients.defined();
    run_chunk_cpu(logits,
                  {targets_.const_data_ptr<int64_t>() + begin,
                   gradient ? coefficients.const_data_ptr<float>() + begin : nullptr,
                   nll.mutable_data_ptr<float>() + begin,
                   correct.defined() ? correct.mutable_data_ptr<uint8_t>() + begin : nullptr,
                   gradient,
                   &options_});
  }

  void losses_device(at::Tensor& logits, int64_t begin, const at::Tensor& coefficients) {
    const auto part = [&](const at::Tensor& all) {
      return all.defined() ? all.narrow(0, begin, logits.size(0)) : all;
    };
    device::loss_chunk(
        logits, {part(targets_), part(coefficients), part(nll), part(correct)}, options_);
  }

  const at::Tensor& hidden_;
  const ParameterPtr& head_;
  const Selection& selection_;
  const TokenLossOptions& options_;
  at::Tensor targets_;
  at::Tensor weight_;

 public:
  at::Tensor nll;      // fp32 [M]
  at::Tensor correct;  // uint8 [M]
};

struct LossStep final : BackwardStep {
  at::Tensor dhidden;

  variable_list backward(variable_list grads) override {
    if (grads[0].defined() && grads[0].item<float>() != 1.0f) {
      throw core::Error(core::ErrorKind::Internal,
                        {.where = "tensor.token_loss",
                         .what = "the fused loss must be a root of backward",
                         .got = fmt::format("gradient {}", grads[0].item<float>()),
                         .allowed = "1",
                         .hint = "TokenLossOptions::scale, or token_log_probs"});
    }
    return {std::move(dhidden)};
  }
  void release_variables() override { dhidden.reset(); }
};

struct LogProbStep final : BackwardStep {
  at::Tensor hidden;
  ParameterPtr head;
  Selection selection;
  TokenLossOptions options;

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor()};
    }
    at::Tensor dhidden;
    if (task_should_compute_output(0)) {
      dhidden = at::zeros_like(hidden);
    }
    // d log p = -(d -log p)
    const at::Tensor incoming = selection.pick(grads[0], 0, selection.count());
    HeadPass pass(hidden, head, selection, options);
    pass.run(incoming.neg().to(at::kCPU, at::kFloat).contiguous(), dhidden);
    return {dhidden};
  }
  void release_variables() override { hidden.reset(); }
};

at::Tensor coefficients_of(const Selection& selection, const TokenLossOptions& options) {
  if (!options.weights_N.defined()) {
    return at::full({selection.count()}, options.scale, at::kFloat);
  }
  return (selection.pick(options.weights_N.to(selection.targets.device()), 0, selection.count())
              .to(at::kCPU, at::kFloat) *
          options.scale)
      .contiguous();
}

/// Sums in double, in the order of rows.
void total_up(const HeadPass& pass,
              const at::Tensor& coefficients,
              double& weighted,
              TokenLoss& result) {
  const float* nll = pass.nll.const_data_ptr<float>();
  const float* factor = coefficients.const_data_ptr<float>();
  for (int64_t i = 0; i < pass.nll.size(0); ++i) {
    result.nll_sum += nll[i];
    weighted += static_cast<double>(nll[i]) * factor[i];
  }
  result.targets = pass.nll.size(0);
  if (pass.correct.defined()) {
    result.correct = pass.correct.sum().item<int64_t>();
  }
}

}  // namespace

TokenLoss token_loss(const at::Tensor& hidden_ND,
                     const ParameterPtr& head,
                     const at::Tensor& targets_N,
                     const TokenLossOptions& options) {
  const Selection selection = select_rows(targets_N.to(hidden_ND.device()), head->shape[0]);
  const bool records = recording() && (hidden_ND.requires_grad() || head->trainable);
  const at::Tensor hidden = hidden_ND.detach();
  const at::Tensor coefficients = coefficients_of(selection, options);
  HeadPass pass(hidden, head, selection, options);
  at::Tensor dhidden;
  if (records && hidden_ND.requires_grad()) {
    dhidden = selection.rows.defined() ? at::zeros_like(hidden) : at::empty_like(hidden);
  }
  pass.run(records ? coefficients : at::Tensor(), dhidden);

  TokenLoss result;
  double weighted = 0;
  total_up(pass, coefficients, weighted, result);
  result.loss = at::full({}, weighted, hidden.options().dtype(at::kFloat));
  if (records) {
    auto step = make_step<LossStep>();
    step->dhidden = dhidden;
    connect(step, {hidden_ND}, {result.loss});
  }
  return result;
}

at::Tensor token_log_probs(const at::Tensor& hidden_ND,
                           const ParameterPtr& head,
                           const at::Tensor& targets_N,
                           const TokenLossOptions& options) {
  const Selection selection = select_rows(targets_N.to(hidden_ND.device()), head->shape[0]);
  const at::Tensor hidden = hidden_ND.detach();
  HeadPass pass(hidden, head, selection, options);
  pass.run({}, {});
  at::Tensor log_p = at::zeros({hidden.size(0)}, hidden.options().dtype(at::kFloat));
  selection.put(log_p, 0, pass.nll.neg().to(hidden.device()));
  if (recording() && (hidden_ND.requires_grad() || head->trainable)) {
    auto step = make_step<LogProbStep>();
    step->hidden = hidden;
    step->head = head;
    step->selection = selection;
    step->options = options;
    step->options.count_correct = false;
    connect(step, {hidden_ND}, {log_p});
  }
  return log_p;
}

}  // namespace kamerton::tensor
