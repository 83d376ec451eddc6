// SPDX-License-Identifier: Apache-2.0
#include "reduce.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

namespace kamerton::comm {
namespace {

constexpr int64_t kBlock = 2048;         // the accumulators of a block stay in the L1 cache
constexpr int64_t kGrain = 64 * 1024;    // elements a thread takes at least
constexpr int64_t kCopyGrain = 1 << 18;  // bytes a thread takes at least

/// memcpy past the cache.
void copy_past_cache(char* to, const char* from, size_t bytes) {
#if defined(__SSE2__)
  const size_t head = std::min(bytes, (64 - reinterpret_cast<uintptr_t>(to) % 64) % 64);
  std::memcpy(to, from, head);
  size_t i = head;
  for (; i + 64 <= bytes; i += 64) {
    const auto* source = reinterpret_cast<const __m128i*>(from + i);
    auto* target = reinterpret_cast<__m128i*>(to + i);
    const __m128i a = _mm_loadu_si128(source);
    const __m128i b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2);
    const __m128i d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, a);
    _mm_stream_si128(target + 1, b);
    _mm_stream_si128(target + 2, c);
    _mm_stream_si128(target + 3, d);
  }
  std::memcpy(to + i, from + i, bytes - i);
  _mm_sfence();
#else
  std::memcpy(to, from, bytes);
#endif
}

template <Reduce kOp, class T>
inline T combine(T a, T b) {
  if constexpr (kOp == Reduce::Sum) {
    return static_cast<T>(a + b);
  } else if constexpr (std::is_floating_point_v<T>) {
    const bool first = (kOp == Reduce::Max ? a > b : a < b) || std::isnan(a);
    return first ? a : b;
  } else {
    return kOp == Reduce::Max ? std::max(a, b) : std::min(a, b);
  }
}

template <class In, class Acc, class Out, Reduce kOp>
void reduce_block(
    std::span<const void* const> inputs, Out* out, int64_t begin, int64_t count, Store store) {
  alignas(64) Acc acc[kBlock];
  const In* first = static_cast<const In*>(inputs[0]) + begin;
  if (inputs.size() == 1) {
    for (int64_t i = 0; i < count; ++i) {
      out[begin + i] = static_cast<Out>(static_cast<Acc>(first[i]));
    }
    return;
  }
  const In* second = static_cast<const In*>(inputs[1]) + begin;
  for (int64_t i = 0; i < count; ++i) {
    acc[i] = combine<kOp>(static_cast<Acc>(first[i]), static_cast<Acc>(second[i]));
  }
  for (size_t r = 2; r < inputs.size(); ++r) {
    const In* next = static_cast<const In*>(inputs[r]) + begin;
    for (int64_t i = 0; i < count; ++i) {
      acc[i] = combine<kOp>(acc[i], static_cast<Acc>(next[i]));
    }
  }
  if (store == Store::Cached) {
    for (int64_t i = 0; i < count; ++i) {
      out[begin + i] = static_cast<Out>(acc[i]);
    }
    return;
  }
  alignas(64) Out rounded[kBlock];
  for (int64_t i = 0; i < count; ++i) {
    rounded[i] = static_cast<Out>(acc[i]);
  }
  copy_past_cache(reinterpret_cast<char*>(out + begin),
                  reinterpret_cast<const char*>(rounded),
                  static_cast<size_t>(count) * sizeof(Out));
}

template <class In, class Acc, class Out, Reduce kOp>
void reduce_range(std::span<const void* const> inputs, void* out, int64_t count, Store store) {
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += kBlock) {
      reduce_block<In, Acc, Out, kOp>(
          inputs, static_cast<Out*>(out), i, std::min(kBlock, end - i), store);
    }
  });
}

template <class In, class Acc, class Out>
void reduce_op(
    std::span<const void* const> inputs, void* out, int64_t count, Reduce op, Store store) {
  switch (op) {
    case Reduce::Sum:
      return reduce_range<In, Acc, Out, Reduce::Sum>(inputs, out, count, store);
    case Reduce::Max:
      return reduce_range<In, Acc, Out, Reduce::Max>(inputs, out, count, store);
    case Reduce::Min:
      return reduce_range<In, Acc, Out, Reduce::Min>(inputs, out, count, store);
  }
}

}  // namespace

bool can_reduce(c10::ScalarType in_type, c10::ScalarType out_type) {
  using enum c10::ScalarType;
  const bool half = in_type == BFloat16 || in_type == Half;
  if (in_type != out_type) {
    return half && out_type == Float;
  }
  return half || in_type == Float || in_type == Double || in_type == Long || in_type == Int ||
         in_type == Byte;
}

void reduce_ranks(std::span<const void* const> inputs,
                  c10::ScalarType in_type,
                  void* out,
                  c10::ScalarType out_type,
                  int64_t count,
                  Reduce op,
                  Store store) {
  using c10::ScalarType;
  const bool widen = in_type != out_type;
  switch (in_type) {
    case ScalarType::Float:
      return reduce_op<float, float, float>(inputs, out, count, op, store);
    case ScalarType::Double:
      return reduce_op<double, double, double>(inputs, out, count, op, store);
    case ScalarType::BFloat16:
      return widen ? reduce_op<c10::BFloat16, float, float>(inputs, out, count, op, store)
                   : reduce_op<c10::BFloat16, float, c10::BFloat16>(inputs, out, count, op, store);
    case ScalarType::Half:
      return widen ? reduce_op<c10::Half, float, float>(inputs, out, count, op, store)
                   : reduce_op<c10::Half, float, c10::Half>(inputs, out, count, op, store);
    case ScalarType::Long:  // unsigned: sums wrap instead of overflowing
      return op == Reduce::Sum
                 ? reduce_op<uint64_t, uint64_t, uint64_t>(inputs, out, count, op, store)
                 : reduce_op<int64_t, int64_t, int64_t>(inputs, out, count, op, store);
    case ScalarType::Int:
      return op == Reduce::Sum
                 ? reduce_op<uint32_t, uint32_t, uint32_t>(inputs, out, count, op, store)
                 : reduce_op<int32_t, int32_t, int32_t>(inputs, out, count, op, store);
    default:
      return reduce_op<uint8_t, uint8_t, uint8_t>(inputs, out, count, op, store);
  }
}

void copy_bytes(void* to, const void* from, int64_t bytes, Store store) {
  if (bytes == 0 || to == from) {
    return;
  }
  at::parallel_for(0, bytes, kCopyGrain, [&](int64_t begin, int64_t end) {
    char* target = static_cast<char*>(to) + begin;
    const char* source = static_cast<const char*>(from) + begin;
    const size_t length = static_cast<size_t>(end - begin);
    if (store == Store::Bypass) {
      copy_past_cache(target, source, length);
    } else {
      std::memcpy(target, source, length);
    }
  });
}

}  // namespace kamerton::comm
