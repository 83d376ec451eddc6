// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tensor/attention.h"

#include <cmath>

#include "kamerton/tensor/decode.h"

#include "reference.h"

namespace kamerton::tensor {
namespace {

using test::double_leaf;
using test::largest_difference;
using test::random_tensor;

Rotary rotary_of(int64_t rows, int64_t half) {
  const at::Tensor angles = random_tensor({rows, half}, 99);
  return {angles.cos(), angles.sin()};
}

at::Tensor naive_rotated(const at::Tensor& x, const Rotary& rotary, int64_t head_dim) {
  const int64_t half = rotary.cos_NR.size(1);
  const at::Tensor heads = x.view({x.size(0), -1, head_dim});
  const at::Tensor cos = rotary.cos_NR.to(x.scalar_type()).unsqueeze(1);
  const at::Tensor sin = rotary.sin_NR.to(x.scalar_type()).unsqueeze(1);
  const at::Tensor a = heads.narrow(2, 0, half);
  const at::Tensor b = heads.narrow(2, half, half);
  return at::cat(
             {a * cos - b * sin, b * cos + a * sin, heads.narrow(2, 2 * half, head_dim - 2 * half)},
             2)
      .view(x.sizes());
}

/// Whole score matrices with a mask over documents, causality and the window.
at::Tensor naive_attention(const at::Tensor& q,
                           const at::Tensor& k,
                           const at::Tensor& v,
                           const AttentionShape& shape,
                           const std::vector<int64_t>& offsets) {
  const int64_t rows = q.size(0);
  at::Tensor allowed = at::zeros({rows, rows}, at::kBool);
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    for (int64_t i = offsets[d]; i < offsets[d + 1]; ++i) {
      const int64_t first =
          shape.window > 0 ? std::max(offsets[d], i - shape.window + 1) : offsets[d];
      allowed[i].slice(0, first, i + 1).fill_(true);
    }
  }
  const auto heads = [&](const at::Tensor& x, int64_t n) {
    return x.view({rows, n, shape.head_dim}).transpose(0, 1);
  };
  const int64_t group = shape.heads / shape.kv_heads;
  const at::Tensor keys = heads(k, shape.kv_heads).repeat_interleave(group, 0);
  const at::Tensor values = heads(v, shape.kv_heads).repeat_interleave(group, 0);
  at::Tensor scores = at::matmul(heads(q, shape.heads), keys.transpose(1, 2)) * shape.scale;
  if (shape.soft_cap > 0) {
    scores = at::tanh(scores / shape.soft_cap) * shape.soft_cap;
  }
  const at::Tensor p = at::softmax(scores.masked_fill(allowed.logical_not(), -INFINITY), -1);
  return at::matmul(p, values).transpose(0, 1).reshape({rows, -1});
}

struct Case {
  AttentionShape shape;
  std::vector<int64_t> offsets;
  int64_t half;
};

class Attention : public testing::TestWithParam<Case> {};

TEST_P(Attention, EqualsWholeScoreMatricesInDoublePrecision) {
  const auto& [shape, offsets, half] = GetParam();
  const int64_t rows = offsets.back();
  const Rotary rotary = rotary_of(rows, half);
  const at::Tensor q = random_tensor({rows, shape.heads * shape.head_dim}, 1).requires_grad_(true);
  const at::Tensor k =
      random_tensor({rows, shape.kv_heads * shape.head_dim}, 2).requires_grad_(true);
  const at::Tensor v =
      random_tensor({rows, shape.kv_heads * shape.head_dim}, 3).requires_grad_(true);
  const at::Tensor dout = random_tensor({rows, shape.heads * shape.head_dim}, 4);
  const at::Tensor q64 = double_leaf(q);
  const at::Tensor k64 = double_leaf(k);
  const at::Tensor v64 = double_leaf(v);
  const at::Tensor want = naive_attention(naive_rotated(q64, rotary, shape.head_dim),
                                          naive_rotated(k64, rotary, shape.head_dim),
                                          v64,
                                          shape,
                                          offsets);
  test::backward(want, dout);

  // attend consumes q and k: give it copies that lead back to the leaves.
  const at::Tensor got = attend(
      q * 1.0, k * 1.0, v, rotary, shape, std::make_shared<const std::vector<int64_t>>(offsets));
  test::backward(got, dout);

  EXPECT_LT(largest_difference(got, want), 5e-6);
  EXPECT_LT(largest_difference(q.grad(), q64.grad()), 2e-5);
  EXPECT_LT(largest_difference(k.grad(), k64.grad()), 2e-5);
  EXPECT_LT(largest_difference(v.grad(), v64.grad()), 2e-5);
}

AttentionShape shape_of(
    int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t window = 0, double cap = 0) {
  return {heads, kv_heads, head_dim, 1.0 / std::sqrt(static_cast<double>(head_dim)), window, cap};
}

INSTANTIATE_TEST_SUITE_P(Cases,
                         Attention,
                         testing::Values(Case{shape_of(4, 4, 8), {0, 40}, 4},
                                         Case{shape_of(4, 2, 16), {0, 7, 8, 40}, 8},
                                         Case{shape_of(6, 2, 12), {0, 20, 40, 60}, 6},
                                         Case{shape_of(3, 1, 12), {0, 33, 45}, 4},
                                         Case{shape_of(4, 2, 8, 5), {0, 3, 40, 60}, 4},
                                         Case{shape_of(2, 2, 64), {0, 600}, 32},
                                         // By blocks of 128 query rows:
                                         Case{shape_of(4, 2, 8, 0, 1.5), {0, 1, 40, 300}, 4},
                                         Case{shape_of(4, 1, 16, 50, 2.0), {0, 129, 400}, 8},
                                         Case{shape_of(2, 2, 8, 200, 0), {0, 90, 620}, 4},
                                         Case{shape_of(3, 3, 12, 128, 50.0), {0, 256}, 6}));

TEST(Attention, BlocksGiveTheSameBitsOnAnyNumberOfThreads) {
  const AttentionShape shape = shape_of(4, 2, 8, 30, 2.0);
  const auto offsets =
      std::make_shared<const std::vector<int64_t>>(std::vector<int64_t>{0, 70, 400});
  std::vector<std::vector<at::Tensor>> results;
  for (const int threads : {1, 3}) {
    at::set_num_threads(threads);
    const at::Tensor q = random_tensor({400, 32}, 1).requires_grad_(true);
    const at::Tensor k = random_tensor({400, 16}, 2).requires_grad_(true);
    const at::Tensor v = random_tensor({400, 16}, 3).requires_grad_(true);
    const at::Tensor out = attend(q * 1.0, k * 1.0, v, {}, shape, offsets);
    test::backward(out, random_tensor({400, 32}, 4));
    results.push_back({out.detach(), q.grad(), k.grad(), v.grad()});
  }
  at::set_num_threads(1);
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_TRUE(at::equal(results[0][i], results[1][i])) << i;
  }
}

TEST(AttendCached, EqualsTheLastRowOfWholeAttention) {
  for (const auto& [window, cap] :
       {std::pair<int64_t, double>{0, 0}, {9, 0}, {0, 1.5}, {9, 30.0}}) {
    const AttentionShape shape = shape_of(4, 2, 8, window, cap);
    const int64_t length = 37;
    const at::Tensor q = random_tensor({length, 32}, 1);
    const at::Tensor k = random_tensor({length, 16}, 2);
    const at::Tensor v = random_tensor({length, 16}, 3);
    std::vector<at::Tensor> pages;
    for (int64_t at = 0; at < length; at += 10) {
      const int64_t n = std::min<int64_t>(10, length - at);
      pages.push_back(at::zeros({2, 10, 16}));
      pages.back()[0].narrow(0, 0, n).copy_(k.narrow(0, at, n));
      pages.back()[1].narrow(0, 0, n).copy_(v.narrow(0, at, n));
    }
    const at::Tensor want = naive_attention(q, k, v, shape, {0, length});

    const at::Tensor got = attend_cached(
        q.slice(0, 20, length).contiguous(),
        [&] {
          std::vector<CachedRow> rows;
          for (int64_t i = 20; i < length; ++i) {
            rows.push_back({&pages, i + 1});
          }
          return rows;
        }(),
        shape);

    EXPECT_LT(largest_difference(got, want.slice(0, 20, length)), 2e-6);
  }
}

TEST(Rotate, TurnsBackExactlyUpToRounding) {
  const Rotary rotary = rotary_of(30, 5);
  const at::Tensor x = random_tensor({30, 36}, 1);
  at::Tensor turned = x.clone();
  rotate(turned, rotary, 12);
  EXPECT_LT(largest_difference(turned, naive_rotated(x, rotary, 12)), 1e-6);
  rotate(turned, rotary, 12, true);
  EXPECT_LT(largest_difference(turned, x), 1e-6);
}

}  // namespace
}  // namespace kamerton::tensor
