// SPDX-License-Identifier: Apache-2.0
// What every backend of comm::Group must do. A test program calls these on each rank of a group.
#pragma once

#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kamerton/comm/group.h"
#include "kamerton/core/error.h"

namespace kamerton::contract {

inline const std::vector<at::ScalarType>& dtypes() {
  static const std::vector<at::ScalarType> all = {
      at::kFloat, at::kBFloat16, at::kHalf, at::kDouble, at::kLong, at::kInt, at::kByte};
  return all;
}

/// The tensor that rank r contributes: a pure function, so that every rank can compute every
/// other's.
inline at::Tensor sample(int rank, int64_t count, at::ScalarType dtype, uint64_t salt = 0) {
  at::Tensor values = at::empty({count}, at::kDouble);
  double* out = values.data_ptr<double>();
  const bool whole = at::isIntegralType(dtype, false);
  for (int64_t i = 0; i < count; ++i) {
    uint64_t x = (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15ull +
                 (rank + 1) * 0xBF58476D1CE4E5B9ull + salt;
    x = (x ^ (x >> 29)) * 0x94D049BB133111EBull;
    x ^= x >> 32;
    out[i] =
        whole ? static_cast<double>(x % 41) : static_cast<double>(x % 2000003) / 1000001.5 - 1.0;
  }
  return values.to(dtype);
}

/// The sum (or Max, Min) over ranks, taken one rank after the other: 16-bit types in fp32, the
/// others in their own type.
inline at::Tensor reference(int size,
                            int64_t count,
                            at::ScalarType dtype,
                            at::ScalarType out,
                            comm::Reduce op,
                            uint64_t salt = 0) {
  const bool half = dtype == at::kBFloat16 || dtype == at::kHalf;
  const at::ScalarType work = half ? at::kFloat : dtype;
  at::Tensor total = sample(0, count, dtype, salt).to(work);
  for (int r = 1; r < size; ++r) {
    const at::Tensor next = sample(r, count, dtype, salt).to(work);
    total = op == comm::Reduce::Sum   ? total.add(next)
            : op == comm::Reduce::Max ? at::maximum(total, next)
                                      : at::minimum(total, next);
  }
  return total.to(out);
}

inline void expect_same_bits(const at::Tensor& got,
                             const at::Tensor& expected,
                             const std::string& what) {
  EXPECT_EQ(got.scalar_type(), expected.scalar_type()) << what;
  EXPECT_TRUE(at::equal(got.view(-1), expected.view(-1)))
      << what << ": largest difference "
      << (got.view(-1).to(at::kDouble) - expected.view(-1).to(at::kDouble))
             .abs()
             .max()
             .item<double>();
}

inline std::string label(const char* op,
                         at::ScalarType dtype,
                         int64_t count,
                         const comm::Group& group) {
  return std::string(op) + " " + c10::toString(dtype) + " x " + std::to_string(count) + " rank " +
         std::to_string(group.rank()) + "/" + std::to_string(group.size());
}

/// 0, 1, odd, more than any staging chunk (the last is counted in elements a rank).
inline std::vector<int64_t> sizes() {
  return {0, 1, 7, 1023, 9001};
}

inline void reduces_in_rank_order(const comm::Group& group) {
  const int n = group.size();
  for (const at::ScalarType dtype : dtypes()) {
    for (const int64_t count : sizes()) {
      for (const comm::Reduce op : {comm::Reduce::Sum, comm::Reduce::Max, comm::Reduce::Min}) {
        const at::Tensor expected = reference(n, count * n, dtype, dtype, op);
        at::Tensor whole = sample(group.rank(), count * n, dtype);
        at::Tensor part = at::empty({count}, dtype);
        group.reduce_scatter(whole, part, op);
        expect_same_bits(part,
                         expected.narrow(0, group.rank() * count, count),
                         label("reduce_scatter", dtype, count, group));
        expect_same_bits(whole,
                         sample(group.rank(), count * n, dtype),
                         label("input untouched", dtype, count, group));
        group.all_reduce(whole, op);
        expect_same_bits(whole, expected, label("all_reduce", dtype, count * n, group));
        at::Tensor gathered = at::empty({count * n}, dtype);
        group.all_gather(part, gathered);
        expect_same_bits(
            gathered, whole, label("reduce_scatter + all_gather", dtype, count, group));
      }
    }
  }
}

inline void all_reduces_sizes_that_do_not_divide(const comm::Group& group) {
  for (const int64_t count :
       {int64_t{2}, int64_t{3}, int64_t{5}, int64_t{16385}, int64_t{200003}}) {
    at::Tensor tensor = sample(group.rank(), count, at::kFloat, 5);
    group.all_reduce(tensor);
    expect_same_bits(tensor,
                     reference(group.size(), count, at::kFloat, at::kFloat, comm::Reduce::Sum, 5),
                     label("all_reduce", at::kFloat, count, group));
  }
}

inline void accumulates_16_bits_in_fp32(const comm::Group& group) {
  const int n = group.size();
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    for (const int64_t count : {int64_t{3}, int64_t{60001}}) {
      const at::Tensor whole = sample(group.rank(), count * n, dtype, 9);
      at::Tensor part = at::empty({count}, at::kFloat);
      group.reduce_scatter(whole, part);
      const at::Tensor expected = reference(n, count * n, dtype, at::kFloat, comm::Reduce::Sum, 9);
      expect_same_bits(part,
                       expected.narrow(0, group.rank() * count, count),
                       label("widening reduce_scatter", dtype, count, group));
    }
  }
  // 256 + 1 + ... + 1 in bfloat16 would stay 256; in fp32 the ones are counted and the sum is
  // rounded once.
  at::Tensor tensor = at::full({8}, group.rank() == 0 ? 256.0 : 1.0, at::kBFloat16);
  group.all_reduce(tensor);
  EXPECT_EQ(tensor[0].item<float>(), at::tensor(256.0f + (n - 1)).to(at::kBFloat16).item<float>());
}

inline void works_in_place(const comm::Group& group) {
  const int n = group.size();
  for (const int64_t count : {int64_t{5}, int64_t{100003}}) {
    at::Tensor whole = sample(group.rank(), count * n, at::kFloat, 3);
    at::Tensor own = whole.narrow(0, group.rank() * count, count);
    group.reduce_scatter(whole, own);
    const at::Tensor expected =
        reference(n, count * n, at::kFloat, at::kFloat, comm::Reduce::Sum, 3);
    expect_same_bits(own,
                     expected.narrow(0, group.rank() * count, count),
                     label("in-place reduce_scatter", at::kFloat, count, group));
    group.all_gather(own, whole);
    expect_same_bits(whole, expected, label("in-place all_gather", at::kFloat, count, group));
    whole.zero_();
    whole.narrow(0, group.rank() * count, count).fill_(group.rank() + 1);
    comm::Work work = group.all_gather_async(own, whole);
    work.wait();
    for (int r = 0; r < n; ++r) {
      EXPECT_TRUE(whole.narrow(0, r * count, count).eq(r + 1).all().item<bool>());
    }
  }
}

inline void moves_data(const comm::Group& group) {
  const int n = group.size();
  for (const at::ScalarType dtype : dtypes()) {
    for (const int64_t count : sizes()) {
      const int root = static_cast<int>(count % n);
      at::Tensor tensor = sample(group.rank(), count, dtype);
      group.broadcast(tensor, root);
      expect_same_bits(tensor, sample(root, count, dtype), label("broadcast", dtype, count, group));
      const at::Tensor input = sample(group.rank(), count * n, dtype);
      at::Tensor output = at::empty({count * n}, dtype);
      group.all_to_all(input, output);
      for (int r = 0; r < n; ++r) {
        expect_same_bits(output.narrow(0, r * count, count),
                         sample(r, count * n, dtype).narrow(0, group.rank() * count, count),
                         label("all_to_all", dtype, count, group));
      }
    }
  }
}

inline void moves_scalars_and_strings(const comm::Group& group) {
  const int n = group.size();
  const int rank = group.rank();
  EXPECT_EQ(group.sum(int64_t{1} << 40), n * (int64_t{1} << 40));
  EXPECT_EQ(group.max(int64_t{rank}), n - 1);
  EXPECT_EQ(group.min(int64_t{-rank}), 1 - n);
  EXPECT_EQ(group.max(0.5 * rank), 0.5 * (n - 1));
  double expected = 0.1;
  for (int r = 1; r < n; ++r) {
    expected += 0.1 * (r + 1);
  }
  EXPECT_EQ(group.sum(0.1 * (rank + 1)), expected);
  EXPECT_TRUE(group.any(rank == n - 1));
  EXPECT_FALSE(group.any(false));
  const std::vector<int64_t> squares = group.all_gather(int64_t{rank * rank});
  const std::vector<double> halves = group.all_gather(0.5 * rank);
  const std::vector<std::string> names =
      group.all_gather(std::string(static_cast<size_t>(rank * 3), 'a' + rank));
  const std::vector<std::string> blobs =
      group.all_gather(std::string(rank == 0 ? 1'100'001 : 0, 'x'));
  ASSERT_EQ(names.size(), static_cast<size_t>(n));
  for (int r = 0; r < n; ++r) {
    EXPECT_EQ(squares[r], r * r);
    EXPECT_EQ(halves[r], 0.5 * r);
    EXPECT_EQ(names[r], std::string(static_cast<size_t>(r * 3), 'a' + r));
    EXPECT_EQ(blobs[r].size(), r == 0 ? 1'100'001u : 0u);
  }
  const std::string nul("a\0b", 3);
  EXPECT_EQ(group.broadcast(rank == n - 1 ? nul : std::string("ignored and longer"), n - 1), nul);
  group.barrier();
}

inline void splits(const comm::Group& group) {
  const int n = group.size();
  const int rank = group.rank();
  // Even and odd ranks, each in reverse order.
  const comm::Group half = group.split(rank % 2, -rank, "parity");
  EXPECT_EQ(half.name(), "parity");
  EXPECT_EQ(half.size(), rank % 2 == 0 ? (n + 1) / 2 : n / 2);
  int64_t sum = 0;
  int above = 0;
  for (int r = rank % 2; r < n; r += 2) {
    sum += r;
    above += r > rank ? 1 : 0;
  }
  EXPECT_EQ(half.rank(), above);
  EXPECT_EQ(half.sum(int64_t{rank}), sum);
  at::Tensor big = at::full({300000}, rank + 1.0f);
  half.all_reduce(big);
  EXPECT_EQ(big[299999].item<float>(), static_cast<float>(sum + half.size()));
  const comm::Group alone = half.split(half.rank(), 0, "alone");
  EXPECT_EQ(alone.size(), 1);
  EXPECT_EQ(alone.sum(int64_t{7}), 7);
  EXPECT_EQ(group.sum(int64_t{1}), n);  // the parent goes on
}

template <class Call>
void expect_comm_error(Call call, const std::string& part) {
  try {
    call();
    FAIL() << "no error; expected one with '" << part << "'";
  } catch (const core::Error& error) {
    EXPECT_EQ(error.kind(), core::ErrorKind::Comm);
    EXPECT_THAT(error.what(), testing::HasSubstr(part));
  }
}

/// Found before anything is sent, on every rank alike: the group stays usable.
inline void refuses_what_cannot_travel(const comm::Group& group) {
  const int n = group.size();
  at::Tensor undefined;
  at::Tensor flags = at::zeros({4}, at::kBool);
  at::Tensor strided = at::zeros({4, 4}).t();
  at::Tensor small = at::zeros({3});
  at::Tensor doubles = at::zeros({3}, at::kDouble);
  const at::Tensor whole = at::zeros({4 * n});
  const at::Tensor odd = at::zeros({4 * n + 1});
  expect_comm_error([&] { group.all_reduce(undefined); }, "no storage");
  expect_comm_error([&] { group.all_reduce(flags); }, "dtype cannot travel");
  expect_comm_error([&] { group.broadcast(strided, 0); }, "not contiguous");
  expect_comm_error([&] { group.broadcast(small, n); }, "no such root");
  expect_comm_error([&] { group.broadcast(small, -1); }, "no such root");
  expect_comm_error([&] { group.reduce_scatter(whole, small); }, "does not fit");
  expect_comm_error([&] { group.all_gather(small, doubles); }, "differ in dtype");
  expect_comm_error([&] { group.split(-1, 0, "x"); }, "color is negative");
  if (n > 1) {
    expect_comm_error([&] { group.reduce_scatter(odd, small); }, "does not divide");
    expect_comm_error([&] { group.all_to_all(odd, small); }, "group " + group.name());
  }
  EXPECT_EQ(group.sum(int64_t{1}), n);
}

}  // namespace kamerton::contract
