// SPDX-License-Identifier: Apache-2.0
// Every return code of NCCL and CUDA passes through here.
#pragma once

#include <source_location>

#include <cuda_runtime_api.h>
#include <nccl.h>

namespace kamerton::comm {

/// Throw ErrorKind::Comm with the library's text and the place of the call. ncclInProgress is no
/// failure.
void nccl_check(ncclResult_t code,
                const std::source_location& where = std::source_location::current());
void cuda_check(cudaError_t code,
                const std::source_location& where = std::source_location::current());

}  // namespace kamerton::comm
