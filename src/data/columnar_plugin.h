// SPDX-License-Identifier: Apache-2.0
// What the program and libkamerton_arrow.so agree on: plain C, so that no C++ type of either
// crosses.
#pragma once

#include <stdint.h>

inline constexpr int kColumnarPluginVersion = 1;

enum KamertonColumnarForm : int32_t {
  kKamertonParquet = 1,
  kKamertonArrowFile = 2,
  kKamertonArrowStream = 3
};

enum KamertonColumnarResult : int32_t {
  kKamertonDone = 0,
  kKamertonBadData = 1,  ///< `message` says what
  kKamertonStopped = 2   ///< `write` returned nonzero
};

struct KamertonColumnarRequest {
  const char* path;
  int32_t form;
  const char* const* columns;  ///< those that are wanted
  uint64_t column_count;
  uint64_t max_memory;  ///< bytes that the library may hold at once
  void* context;
  int32_t (*write)(void* context, const char* bytes, uint64_t size);
  char* message;  ///< for the reason, ends with a zero byte
  uint64_t message_size;
};

extern "C" {
/// kColumnarPluginVersion
int32_t kamerton_arrow_version(void);
/// Writes the rows as lines of JSON. Never throws.
int32_t kamerton_arrow_convert(const struct KamertonColumnarRequest* request);
}
