// SPDX-License-Identifier: Apache-2.0
// The elements of one big JSON array, found without parsing them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace kamerton::data {

/// Feed a file in pieces. Only brackets and strings are understood; what stands between two commas
/// of the outer array is an element, whether or not it is JSON. Throws ErrorKind::Data (file:line)
/// when there is no outer array, it does not end, or something follows it.
class ArrayScanner {
 public:
  /// A stretch of the element under way; `done` bytes of it came before.
  using Text = std::function<void(uint64_t done, std::string_view piece)>;
  /// A finished element. Length 0: two commas with nothing between.
  using Element = std::function<void(uint64_t offset, uint64_t length, uint64_t line)>;

  explicit ArrayScanner(std::string path) : path_(std::move(path)) {}
  void feed(uint64_t offset, std::string_view chunk, const Text& text, const Element& element);
  void finish() const;

 private:
  enum class State { Before, Between, Inside, After };

  size_t skip_string(std::string_view chunk, size_t i);
  /// Returns whether the byte ends the element.
  bool step_inside(char byte);
  void start_element(uint64_t offset);
  void step_outside(char byte, uint64_t offset, const Element& element);
  [[noreturn]] void complain(const char* what, const char* allowed) const;

  std::string path_;
  State state_ = State::Before;
  uint64_t line_ = 1;
  uint64_t element_line_ = 1;
  uint64_t element_start_ = 0;
  uint64_t element_end_ = 0;  // behind its last byte that is not blank
  int64_t depth_ = 0;         // open brackets within the element
  bool in_string_ = false;
  bool escaped_ = false;
  bool after_comma_ = false;
};

}  // namespace kamerton::data
