// SPDX-License-Identifier: Apache-2.0
// Attention with capped scores on devices: fused kernels do not know the cap. Blocks of query rows,
// computed again in backward, so that memory grows with a document's length and not its square.
#include <ATen/ATen.h>

#include "device_ops.h"
#include "documents.h"
#include "node.h"

namespace kamerton::tensor::device {
namespace {

constexpr int64_t kQueryRows = 512;

at::Tensor wide(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

/// Query rows [begin, begin + rows) and keys [first, first + keys) of every document of a group.
struct Block {
  int64_t begin;
  int64_t rows;
  int64_t first;
  int64_t keys;
};

std::vector<Block> blocks_of(const Group& group, const AttentionShape& shape) {
  std::vector<Block> blocks;
  for (int64_t begin = 0; begin < group.length; begin += kQueryRows) {
    const int64_t rows = std::min(kQueryRows, group.length - begin);
    const int64_t first =
        shape.window > 0 ? std::max<int64_t>(0, begin - shape.window + 1) : int64_t{0};
    blocks.push_back({begin, rows, first, begin + rows - first});
  }
  return blocks;
}

struct Operands {
  at::Tensor q, k, v;  // [count, heads, length, head_dim], wide
};

/// Capped scores of a block, -infinity where a key is not seen.
at::Tensor scores_of(const Operands& in, const Block& block, const AttentionShape& shape) {
  at::Tensor z = at::matmul(in.q.narrow(2, block.begin, block.rows),
                            in.k.narrow(2, block.first, block.keys).transpose(2, 3));
  z.mul_(shape.scale / shape.soft_cap).tanh_().mul_(shape.soft_cap);
  const int64_t diagonal = block.begin - block.first;
  at::Tensor seen = at::ones({block.rows, block.keys}, z.options().dtype(at::kBool)).tril(diagonal);
  if (shape.window > 0) {
    seen = seen.triu(diagonal - shape.window + 1);
  }
  return z.masked_fill_(seen.logical_not(), -std::numeric_limits<double>::infinity());
}

struct CappedStep final : BackwardStep {
  at::Tensor q, k, v;
  AttentionShape shape;
  std::vector<int64_t> offsets;

  Operands operands(const Group& group) const {
    return {wide(heads_of(q, group, shape.heads)),
            wide(spread(k, group, shape)),
            wide(spread(v, group, shape))};
  }

  at::Tensor forward() const {
    at::Tensor out = at::empty_like(q);
    for (const Group& group : group_documents(offsets)) {
      const Operands in = operands(group);
      at::Tensor result = heads_of(out, group, shape.heads);
      for (const Block& block : blocks_of(group, shape)) {
        const at::Tensor p = at::softmax(scores_of(in, block, shape), -1);
        result.narrow(2, block.begin, block.rows)
            .copy_(at::matmul(p, in.v.narrow(2, block.first, block.keys)));
      }
    }
    return out;
  }

  variable_list backward(variable_list grads) override {
    if (!grads[0].defined()) {
      return {at::Tensor(), at::Tensor(), at::Tensor()};
    }
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dq = at::empty_like(q);
    at::Tensor dk = at::empty_like(k);
    at::Tensor dv = at::empty_like(v);
    for (const Group& group : group_documents(offsets)) {
      backward_group(group, wide(heads_of(dout, group, shape.heads)), dq, dk, dv);
    }
    return {dq, dk, dv};
  }

  void backward_group(const Group& group,
                      const at::Tensor& dout,
                      at::Tensor& dq,
                      at::Tensor& dk,
                      at::Tensor& dv) const {
    const Operands in = operands(group);
    at::Tensor keys = at::zeros(in.k.sizes(), in.k.options());
    at::Tensor values = at::zeros(in.v.sizes(), in.v.options());
    at::Tensor queries = heads_of(dq, group, shape.heads);
    for (const Block& block : blocks_of(group, shape)) {
      const at::Tensor z = scores_of(in, block, shape);
      const at::Tensor p = at::softmax(z, -1);
      const at::Tensor incoming = dout.narrow(2, block.begin, block.rows);
      const at::Tensor dp =
          at::matmul(incoming, in.v.narrow(2, block.first, block.keys).transpose(2, 3));
      // Where nothing is seen, p is 0 and the slope may be anything finite.
      const at::Tensor slope = 1.0 - (z / shape.soft_cap).clamp_min(-1.0).square();
      const at::Tensor dz = p * (dp - (p * dp).sum(-1, true)) * slope * shape.scale;
      queries.narrow(2, block.begin, block.rows)
          .copy_(at::matmul(dz, in.k.narrow(2, block.first, block.keys)));
      keys.narrow(2, block.first, block.keys)
          .add_(at::matmul(dz.transpose(2, 3), in.q.narrow(2, block.begin, block.rows)));
      values.narrow(2, block.first, block.keys).add_(at::matmul(p.transpose(2, 3), incoming));
    }
    gather_heads(keys, group, dk);
    gather_heads(values, group, dv);
  }

  /// Sums the gradients of the query heads that share a key head.
  void gather_heads(const at::Tensor& grad, const Group& group, at::Tensor& into) const {
    heads_of(into, group, shape.kv_heads)
        .copy_(grad.unflatten(1, {shape.kv_heads, shape.heads / shape.kv_heads}).sum(2));
  }

  void release_variables() override {
    q.reset();
    k.reset();
    v.reset();
  }
};

}  // namespace

at::Tensor attend_capped(const at::Tensor& q,
                         const at::Tensor& k,
                         const at::Tensor& v,
                         const AttentionShape& shape,
                         const std::vector<int64_t>& offsets) {
  auto step = make_step<CappedStep>();
  step->q = q.detach().contiguous();
  step->k = k.detach().contiguous();
  step->v = v.detach().contiguous();
  step->shape = shape;
  step->offsets = offsets;
  at::Tensor out;
  {
    const at::NoGradGuard no_grad;
    out = step->forward();
  }
  if (recording() && (q.requires_grad() || k.requires_grad() || v.requires_grad())) {
    connect(step, {q, k, v}, {out});
  }
  return out;
}

}  // namespace kamerton::tensor::device
