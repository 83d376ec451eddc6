// SPDX-License-Identifier: Apache-2.0
#include "nccl_check.h"

#include <string>

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::comm {
namespace {

[[noreturn]] void fail(const char* library, const char* text, const std::source_location& where) {
  std::string_view file = where.file_name();
  file.remove_prefix(file.rfind('/') + 1);
  throw core::Error(
      core::ErrorKind::Comm,
      {.where = "comm.gpu",
       .what = fmt::format(
           "a call of {} failed in {}:{} ({})", library, file, where.line(), where.function_name()),
       .got = text});
}

}  // namespace

void nccl_check(ncclResult_t code, const std::source_location& where) {
  if (code != ncclSuccess && code != ncclInProgress) {
    fail("NCCL", ncclGetErrorString(code), where);
  }
}

void cuda_check(cudaError_t code, const std::source_location& where) {
  if (code != cudaSuccess) {
    fail("CUDA", cudaGetErrorString(code), where);
  }
}

}  // namespace kamerton::comm
