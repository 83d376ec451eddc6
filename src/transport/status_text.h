// SPDX-License-Identifier: Apache-2.0
// Errors across the wire: their kind and words.
#pragma once

#include <exception>

#include <grpcpp/support/status.h>

namespace kamerton::transport {

grpc::Status to_status(const std::exception& error);
/// Throws the error that a status stands for; nothing for OK.
void throw_status(const grpc::Status& status, const char* call);
/// Whether the same call may succeed later.
bool is_transient(const grpc::Status& status);

}  // namespace kamerton::transport
