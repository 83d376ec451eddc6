// SPDX-License-Identifier: Apache-2.0
#include "status_text.h"

#include <string>

#include "kamerton/core/error.h"

namespace kamerton::transport {
namespace {

using core::ErrorKind;
using grpc::StatusCode;

constexpr std::pair<ErrorKind, StatusCode> kCodes[] = {
    {ErrorKind::Permission, StatusCode::PERMISSION_DENIED},
    {ErrorKind::Data, StatusCode::INVALID_ARGUMENT},
    {ErrorKind::Config, StatusCode::FAILED_PRECONDITION},
    {ErrorKind::NoProgress, StatusCode::ABORTED},
    {ErrorKind::Comm, StatusCode::UNAVAILABLE},  // to be tried again
    {ErrorKind::Io, StatusCode::DATA_LOSS},
    {ErrorKind::Internal, StatusCode::INTERNAL}};

constexpr size_t kMostText = 1000;

}  // namespace

grpc::Status to_status(const std::exception& error) {
  StatusCode code = StatusCode::INTERNAL;
  if (const auto* known = dynamic_cast<const core::Error*>(&error)) {
    for (const auto& [kind, status] : kCodes) {
      code = kind == known->kind() ? status : code;
    }
  }
  return {code, std::string(error.what()).substr(0, kMostText)};
}

bool is_transient(const grpc::Status& status) {
  return status.error_code() == StatusCode::UNAVAILABLE ||
         status.error_code() == StatusCode::DEADLINE_EXCEEDED ||
         status.error_code() == StatusCode::RESOURCE_EXHAUSTED ||
         status.error_code() == StatusCode::CANCELLED || status.error_code() == StatusCode::UNKNOWN;
}

void throw_status(const grpc::Status& status, const char* call) {
  if (status.ok()) {
    return;
  }
  ErrorKind kind = ErrorKind::Comm;
  for (const auto& [known, code] : kCodes) {
    kind = code == status.error_code() ? known : kind;
  }
  throw core::Error(kind,
                    {.where = std::string("transport.") + call,
                     .what = status.error_message().empty() ? "the coordinator refused"
                                                            : status.error_message()});
}

}  // namespace kamerton::transport
