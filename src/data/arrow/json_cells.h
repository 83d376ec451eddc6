// SPDX-License-Identifier: Apache-2.0
// Values of Arrow arrays as JSON text.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include <arrow/array.h>

namespace kamerton::data::columnar {

/// A value that has no JSON form; what() names its type.
class NoJsonForm : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Appends `text` in quotes. The bytes above ASCII are copied as they are.
void append_json_string(std::string_view text, std::string& out);

/// Appends value `row` of the array. Lists and structs become lists and objects, times and decimals
/// text, numbers that are not finite null. Throws NoJsonForm.
void append_json(const arrow::Array& array, int64_t row, std::string& out, int depth = 0);

}  // namespace kamerton::data::columnar
