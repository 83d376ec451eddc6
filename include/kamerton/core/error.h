// SPDX-License-Identifier: Apache-2.0
// Errors that a user can act on: what is wrong, what was found, what is allowed, what to try.
#pragma once

#include <concepts>
#include <stdexcept>
#include <string>

namespace kamerton::core {

/// The kinds of failure; each has one exit code, so that a launcher can decide what to do next.
enum class ErrorKind {
  Config,      ///< 64: usage or configuration: stop
  Data,        ///< 65: bad input data: stop
  Internal,    ///< 70: a defect of this program: stop
  Output,      ///< 73: an output cannot be created: stop
  Io,          ///< 74: reading or writing failed, disk full: retry
  Preempted,   ///< 75: asked to stop, state saved: requeue
  Comm,        ///< 76: a peer or a collective failed: retry
  Permission,  ///< 77: not allowed: stop
  Numeric,     ///< 78: not a number, or divergence: stop
  NoProgress,  ///< 79: repeated attempts got no further: stop
};

/// The exit code of a kind (64 ... 79).
int exit_code(ErrorKind kind) noexcept;

/// The parts of a message; empty parts are left out of the text.
struct Complaint {
  std::string where = {};    ///< module.function, without brackets
  std::string what = {};     ///< the fault, in plain words
  std::string got = {};      ///< the offending value
  std::string allowed = {};  ///< what would have been right
  std::string hint = {};     ///< what to do next
};

/// "[where] what; got X; allowed Y; try Z"
std::string to_text(const Complaint& complaint);

/// Thrown for everything that stops a command. Usage: throw Error(ErrorKind::Data, {.where =
/// "storage.safetensors", .what = ...}).
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const Complaint& complaint);
  /// An error that another rank has put into words. (A template, because g++ 12 finds a plain
  /// std::string ambiguous with the designated initializers above.)
  template <std::same_as<std::string> Text>
  Error(ErrorKind kind, const Text& text) : std::runtime_error(text), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

/// The exit code for any exception: an Error's own, 70 for others (std::bad_alloc: 74).
int exit_code(const std::exception& error) noexcept;

}  // namespace kamerton::core
