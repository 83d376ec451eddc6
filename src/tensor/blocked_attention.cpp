// SPDX-License-Identifier: Apache-2.0
#include "blocked_attention.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "simd.h"

namespace kamerton::tensor {
namespace {

constexpr int64_t kQueryRows = 128;

/// Query rows [begin, end) of a document and the keys [first, end) that some of them see; rows of
/// the batch.
struct Block {
  int64_t begin;
  int64_t end;
  int64_t first;

  int64_t rows() const { return end - begin; }
  int64_t keys() const { return end - first; }
};

Block block_at(const AttentionShape& shape, int64_t begin, int64_t document, int64_t document_end) {
  const int64_t end = std::min(begin + kQueryRows, document_end);
  const int64_t reach = shape.window > 0 ? begin - shape.window + 1 : document;
  return {begin, end, std::max(document, reach)};
}

simd::ScoreRow score_row(const AttentionShape& shape, const Block& block, int64_t row) {
  const int64_t query = block.begin + row;
  const int64_t first =
      shape.window > 0 ? std::max(block.first, query - shape.window + 1) : block.first;
  return {block.keys(),
          first - block.first,
          query - first + 1,
          static_cast<float>(shape.scale),
          static_cast<float>(shape.soft_cap)};
}

at::Tensor head_rows(
    const at::Tensor& flat, int64_t head, int64_t head_dim, int64_t begin, int64_t count) {
  return flat.narrow(0, begin, count).narrow(1, head * head_dim, head_dim);
}

/// Scratch for one task: [rows, keys] views of one allocation.
class Scores {
 public:
  at::Tensor view(const Block& block) {
    const int64_t size = block.rows() * block.keys();
    if (!memory_.defined() || memory_.numel() < size) {
      memory_ = at::empty({size}, at::kFloat);
    }
    return memory_.narrow(0, 0, size).view({block.rows(), block.keys()});
  }

 private:
  at::Tensor memory_;
};

struct DocumentBlock {
  int64_t document;
  int64_t end;
  int64_t begin;
};

std::vector<DocumentBlock> all_blocks(const std::vector<int64_t>& offsets) {
  std::vector<DocumentBlock> blocks;
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    for (int64_t begin = offsets[d]; begin < offsets[d + 1]; begin += kQueryRows) {
      blocks.push_back({offsets[d], offsets[d + 1], begin});
    }
  }
  return blocks;
}

/// Everything that belongs to one key head of one document.
class BackwardTask {
 public:
  BackwardTask(const AttentionShape& shape,
               const BlockedOperands& in,
               at::Tensor& dq,
               at::Tensor& dk,
               at::Tensor& dv)
      : shape_(shape), in_(in), dq_(dq), dk_(dk), dv_(dv) {}

  void run(int64_t kv_head, int64_t document, int64_t end) {
    const int64_t group = shape_.heads / shape_.kv_heads;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (int64_t begin = document; begin < end; begin += kQueryRows) {
        run_block(head, kv_head, block_at(shape_, begin, document, end));
      }
    }
  }

 private:
  void run_block(int64_t head, int64_t kv_head, const Block& block) {
    const int64_t d = shape_.head_dim;
    const at::Tensor queries = head_rows(in_.q, head, d, block.begin, block.rows());
    const at::Tensor incoming = head_rows(in_.dout, head, d, block.begin, block.rows());
    const at::Tensor keys = head_rows(in_.k, kv_head, d, block.first, block.keys());
    const at::Tensor values = head_rows(in_.v, kv_head, d, block.first, block.keys());
    at::Tensor scores = scores_.view(block);
    at::Tensor dp = dp_.view(block);
    at::Tensor p = p_.view(block);
    at::mm_out(scores, queries, keys.t());
    at::mm_out(dp, incoming, values.t());
    const at::Tensor delta =
        (incoming * head_rows(in_.out, head, d, block.begin, block.rows())).sum(1);
    const float* log_sums =
        in_.log_sums.const_data_ptr<float>() + head * in_.log_sums.size(1) + block.begin;
    for (int64_t row = 0; row < block.rows(); ++row) {
      const int64_t at = row * block.keys();
      simd::score_gradient(scores.mutable_data_ptr<float>() + at,
                           score_row(shape_, block, row),
                           log_sums[row],
                           dp.const_data_ptr<float>() + at,
                           delta.const_data_ptr<float>()[row],
                           p.mutable_data_ptr<float>() + at);
    }
    at::Tensor dq = head_rows(dq_, head, d, block.begin, block.rows());
    at::mm_out(dq, scores, keys);
    head_rows(dk_, kv_head, d, block.first, block.keys()).addmm_(scores.t(), queries);
    head_rows(dv_, kv_head, d, block.first, block.keys()).addmm_(p.t(), incoming);
  }

  const AttentionShape& shape_;
  const BlockedOperands& in_;
  at::Tensor& dq_;
  at::Tensor& dk_;
  at::Tensor& dv_;
  Scores scores_, dp_, p_;
};

}  // namespace

bool needs_blocks(const AttentionShape& shape, const std::vector<int64_t>& offsets) {
  if (shape.soft_cap > 0) {
    return true;
  }
  if (shape.window <= 0) {
    return false;
  }
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    if (offsets[d + 1] - offsets[d] > shape.window) {
      return true;
    }
  }
  return false;
}

void blocked_forward(const AttentionShape& shape,
                     const std::vector<int64_t>& offsets,
                     const at::Tensor& q,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     at::Tensor& out,
                     at::Tensor& log_sums) {
  const std::vector<DocumentBlock> blocks = all_blocks(offsets);
  const int64_t group = shape.heads / shape.kv_heads;
  const int64_t d = shape.head_dim;
  const auto tasks = static_cast<int64_t>(blocks.size()) * shape.heads;
  at::parallel_for(0, tasks, 1, [&](int64_t first_task, int64_t last_task) {
    const at::NoGradGuard no_grad;
    Scores memory;
    for (int64_t task = first_task; task < last_task; ++task) {
      const DocumentBlock& at = blocks[static_cast<size_t>(task / shape.heads)];
      const int64_t head = task % shape.heads;
      const Block block = block_at(shape, at.begin, at.document, at.end);
      at::Tensor scores = memory.view(block);
      at::mm_out(scores,
                 head_rows(q, head, d, block.begin, block.rows()),
                 head_rows(k, head / group, d, block.first, block.keys()).t());
      float* rows = scores.mutable_data_ptr<float>();
      float* sums = log_sums.mutable_data_ptr<float>() + head * log_sums.size(1) + block.begin;
      for (int64_t row = 0; row < block.rows(); ++row) {
        sums[row] = simd::score_softmax(rows + row * block.keys(), score_row(shape, block, row));
      }
      at::Tensor result = head_rows(out, head, d, block.begin, block.rows());
      at::mm_out(result, scores, head_rows(v, head / group, d, block.first, block.keys()));
    }
  });
}

void blocked_backward(const AttentionShape& shape,
                      const std::vector<int64_t>& offsets,
                      const BlockedOperands& operands,
                      at::Tensor& dq,
                      at::Tensor& dk,
                      at::Tensor& dv) {
  const auto tasks = static_cast<int64_t>(offsets.size() - 1) * shape.kv_heads;
  at::parallel_for(0, tasks, 1, [&](int64_t first_task, int64_t last_task) {
    const at::NoGradGuard no_grad;
    BackwardTask work(shape, operands, dq, dk, dv);
    for (int64_t task = first_task; task < last_task; ++task) {
      const auto document = static_cast<size_t>(task / shape.kv_heads);
      work.run(task % shape.kv_heads, offsets[document], offsets[document + 1]);
    }
  });
}

}  // namespace kamerton::tensor
