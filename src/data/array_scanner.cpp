// SPDX-License-Identifier: Apache-2.0
#include "array_scanner.h"

#include <algorithm>

#include <fmt/format.h>

#include "kamerton/core/error.h"

namespace kamerton::data {
namespace {

bool is_blank(char byte) {
  return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

}  // namespace

void ArrayScanner::complain(const char* what, const char* allowed) const {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "data.scan",
                     .what = fmt::format("{}:{}: {}", path_, line_, what),
                     .allowed = allowed,
                     .hint = "data.format: jsonl when the file has one record a line"});
}

size_t ArrayScanner::skip_string(std::string_view chunk, size_t i) {
  for (; i < chunk.size(); ++i) {
    const char byte = chunk[i];
    if (byte == '\n') {
      ++line_;
    }
    if (escaped_) {
      escaped_ = false;
    } else if (byte == '\\') {
      escaped_ = true;
    } else if (byte == '"') {
      in_string_ = false;
      return i + 1;
    }
  }
  return i;
}

bool ArrayScanner::step_inside(char byte) {
  if (depth_ == 0 && (byte == ',' || byte == ']')) {
    return true;
  }
  switch (byte) {
    case '"':
      in_string_ = true;
      break;
    case '{':
    case '[':
      ++depth_;
      break;
    case '}':
    case ']':
      if (--depth_ < 0) {
        complain("a bracket closes that was never opened", "an array of records");
      }
      break;
    default:
      break;
  }
  return false;
}

void ArrayScanner::start_element(uint64_t offset) {
  state_ = State::Inside;
  element_start_ = offset;
  element_end_ = offset;
  element_line_ = line_;
  depth_ = 0;
}

void ArrayScanner::step_outside(char byte, uint64_t offset, const Element& element) {
  if (is_blank(byte)) {
    return;
  }
  if (state_ == State::Before) {
    if (byte != '[') {
      complain("the file does not start with an array", "[ record, record, ... ]");
    }
    state_ = State::Between;
  } else if (state_ == State::After) {
    complain("something follows the end of the array", "nothing after the closing ]");
  } else if (byte == ',') {
    element(offset, 0, line_);
    after_comma_ = true;
  } else if (byte == ']') {
    if (after_comma_) {
      element(offset, 0, line_);
    }
    state_ = State::After;
  }
}

void ArrayScanner::feed(uint64_t offset,
                        std::string_view chunk,
                        const Text& text,
                        const Element& element) {
  size_t segment = 0;  // where the part of the element in this chunk starts
  size_t i = 0;
  while (i < chunk.size()) {
    const char byte = chunk[i];
    if (state_ == State::Between && !is_blank(byte) && byte != ',' && byte != ']') {
      start_element(offset + i);
      segment = i;
    }
    if (state_ != State::Inside) {
      line_ += byte == '\n' ? 1 : 0;
      step_outside(byte, offset + i, element);
      ++i;
      continue;
    }
    if (in_string_) {
      i = skip_string(chunk, i);
      element_end_ = offset + i;
      continue;
    }
    line_ += byte == '\n' ? 1 : 0;
    if (step_inside(byte)) {
      text(offset + segment - element_start_, chunk.substr(segment, i - segment));
      element(element_start_, element_end_ - element_start_, element_line_);
      state_ = byte == ',' ? State::Between : State::After;
      after_comma_ = byte == ',';
    } else if (!is_blank(byte)) {
      element_end_ = offset + i + 1;
    }
    ++i;
  }
  if (state_ == State::Inside) {
    text(offset + segment - element_start_, chunk.substr(segment));
  }
}

void ArrayScanner::finish() const {
  if (state_ == State::Before) {
    complain("the file holds no array", "[ record, record, ... ]");
  }
  if (state_ != State::After) {
    complain("the array is not closed: the file seems to be cut", "a closing ]");
  }
}

}  // namespace kamerton::data
