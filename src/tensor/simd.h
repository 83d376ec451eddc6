// SPDX-License-Identifier: Apache-2.0
// Inner loops over rows of floats or bfloat16s: no tensors, no threads. All are deterministic: the
// order of a sum depends on its length only.
#pragma once

#include <cstdint>

#include "kamerton/tensor/activation.h"

namespace kamerton::tensor::simd {

/// The bits of a bfloat16; same layout as c10::BFloat16.
struct Bf16 {
  uint16_t bits;
};

struct NormRows {
  int64_t rows;
  int64_t width;
  float eps;
  float weight_offset;  ///< 1 when the norm multiplies by (1 + weight)
};

/// sum = x + delta (delta and sum may be null: then x itself is normalised), y = norm(sum) *
/// weight, rstd one a row.
template <class T>
struct NormForward {
  const T* x;
  const T* delta;
  const T* weight;
  T* sum;
  T* y;
  float* rstd;
};
/// dx = d(norm)/dx (dy) + dsum (may be null); dweight (fp32 [width], may be null) is added to.
template <class T>
struct NormBackward {
  const T* x;
  const T* weight;
  const T* dy;
  const T* dsum;
  const float* rstd;
  T* dx;
  float* dweight;
};
void norm_forward(const NormForward<float>& p, const NormRows& n);
void norm_forward(const NormForward<Bf16>& p, const NormRows& n);
void norm_backward(const NormBackward<float>& p, const NormRows& n);
void norm_backward(const NormBackward<Bf16>& p, const NormRows& n);

/// Layer norm. mean and rstd: one a row; delta and sum as in NormForward; bias may be null.
template <class T>
struct LayerNormForward {
  const T* x;
  const T* delta;
  const T* weight;
  const T* bias;
  T* sum;
  T* y;
  float* mean;
  float* rstd;
};
/// dweight and dbias (fp32 [width], may be null) are added to; dsum may be null.
template <class T>
struct LayerNormBackward {
  const T* x;
  const T* weight;
  const T* dy;
  const T* dsum;
  const float* mean;
  const float* rstd;
  T* dx;
  float* dweight;
  float* dbias;
};
void layer_norm_forward(const LayerNormForward<float>& p, const NormRows& n);
void layer_norm_forward(const LayerNormForward<Bf16>& p, const NormRows& n);
void layer_norm_backward(const LayerNormBackward<float>& p, const NormRows& n);
void layer_norm_backward(const LayerNormBackward<Bf16>& p, const NormRows& n);

/// out = f(gate) * up over n elements; up null: f(gate).
void gated_forward(Activation f, const float* gate, const float* up, float* out, int64_t n);
void gated_forward(Activation f, const Bf16* gate, const Bf16* up, Bf16* out, int64_t n);
/// up and dup null: those of f(gate).
template <class T>
struct GatedBackward {
  const T* gate;
  const T* up;
  const T* dout;
  T* dgate;
  T* dup;
};
void gated_backward(Activation f, const GatedBackward<float>& p, int64_t n);
void gated_backward(Activation f, const GatedBackward<Bf16>& p, int64_t n);

/// Turns the pairs (i, i + half) of each head of one row; cos and sin [half]. sign -1 turns back.
void rotate_row(float* row,
                int64_t heads,
                int64_t head_dim,
                int64_t half,
                const float* cos,
                const float* sin,
                float sign);
void rotate_row(Bf16* row,
                int64_t heads,
                int64_t head_dim,
                int64_t half,
                const float* cos,
                const float* sin,
                float sign);

/// One row of logits to its loss, and in place to its gradient.
struct LossRow {
  int64_t vocab;
  int64_t target;
  float coefficient;  ///< of the gradient: d(-log p) times this
  float logit_scale;
  float soft_cap;  ///< 0: none
  bool gradient;   ///< overwrite the logits with the gradient with respect to them
  bool count_correct;
};
struct LossResult {
  float nll;
  bool correct;
};
/// scratch: 2 * vocab floats (may be null for fp32 logits without a cap).
LossResult loss_row(float* logits, const LossRow& row, float* scratch);
LossResult loss_row(Bf16* logits, const LossRow& row, float* scratch);

/// accumulator += x over n elements.
void add_into(float* accumulator, const float* x, int64_t n);
void add_into(float* accumulator, const Bf16* x, int64_t n);

/// One row of attention scores to probabilities. scores [count]: products of query and keys; those
/// outside of [first, first + seen) become 0. With soft_cap > 0, score = cap * tanh(score / cap).
struct ScoreRow {
  int64_t count;
  int64_t first;
  int64_t seen;  ///< 1 or more
  float scale;
  float soft_cap;  ///< 0: none
};
/// The row becomes softmax(score); returns log(sum of e^score).
float score_softmax(float* scores, const ScoreRow& row);
/// The row becomes the gradient with respect to the products, given log_sum of score_softmax, dp
/// (gradient of the probabilities, [count]) and delta (sum of p * dp). p [count] receives the
/// probabilities.
void score_gradient(
    float* scores, const ScoreRow& row, float log_sum, const float* dp, float delta, float* p);

/// One query head against `length` cached rows: part of a softmax over several pages, merged by the
/// caller's order.
struct DecodeState {
  float max;           ///< -infinity at the start
  float sum;           ///< 0 at the start
  float soft_cap = 0;  ///< of the scores; 0: none
};
/// q [d] (fp32, already scaled), keys and values [length] rows of stride `stride`; out [d]
/// accumulates unnormalised. scratch: `length` floats.
void decode_page(const float* q,
                 const float* keys,
                 const float* values,
                 int64_t length,
                 int64_t stride,
                 int64_t d,
                 DecodeState& state,
                 float* out,
                 float* scratch);
void decode_page(const float* q,
                 const Bf16* keys,
                 const Bf16* values,
                 int64_t length,
                 int64_t stride,
                 int64_t d,
                 DecodeState& state,
                 float* out,
                 float* scratch);

/// y[o] = sum_i x[i] * w[o, i] for `out` rows of w: the product of a single row, bound by reading
/// w.
void matvec(const float* x, const float* w, float* y, int64_t out, int64_t in);
void matvec(const float* x, const Bf16* w, float* y, int64_t out, int64_t in);

/// False when an exponent is all ones (NaN, infinity).
bool all_finite(const float* x, int64_t n);
bool all_finite(const Bf16* x, int64_t n);

void to_float(const Bf16* x, float* y, int64_t n);
void to_bf16(const float* x, Bf16* y, int64_t n);

}  // namespace kamerton::tensor::simd
