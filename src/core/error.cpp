// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/error.h"

#include <new>

namespace kamerton::core {

int exit_code(ErrorKind kind) noexcept {
  switch (kind) {
    case ErrorKind::Config:
      return 64;
    case ErrorKind::Data:
      return 65;
    case ErrorKind::Internal:
      return 70;
    case ErrorKind::Output:
      return 73;
    case ErrorKind::Io:
      return 74;
    case ErrorKind::Preempted:
      return 75;
    case ErrorKind::Comm:
      return 76;
    case ErrorKind::Permission:
      return 77;
    case ErrorKind::Numeric:
      return 78;
    case ErrorKind::NoProgress:
      return 79;
  }
  return 70;
}

std::string to_text(const Complaint& complaint) {
  std::string text = "[" + complaint.where + "] " + complaint.what;
  if (!complaint.got.empty()) {
    text += "; got " + complaint.got;
  }
  if (!complaint.allowed.empty()) {
    text += "; allowed " + complaint.allowed;
  }
  if (!complaint.hint.empty()) {
    text += "; try " + complaint.hint;
  }
  return text;
}

Error::Error(ErrorKind kind, const Complaint& complaint)
    : std::runtime_error(to_text(complaint)), kind_(kind) {}

int exit_code(const std::exception& error) noexcept {
  if (const auto* known = dynamic_cast<const Error*>(&error)) {
    return exit_code(known->kind());
  }
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return exit_code(ErrorKind::Io);
  }
  return exit_code(ErrorKind::Internal);
}

}  // namespace kamerton::core
