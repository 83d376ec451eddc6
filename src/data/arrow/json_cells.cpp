// SPDX-License-Identifier: Apache-2.0
#include "json_cells.h"

#include <charconv>
#include <cmath>

#include <arrow/extension_type.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/float16.h>

namespace kamerton::data::columnar {
namespace {

constexpr int kMaxDepth = 48;  // JSON is read to a depth of 64

template <class Number>
void append_number(Number value, std::string& out) {
  char text[32];
  out.append(text, std::to_chars(text, text + sizeof(text), value).ptr);
}

void append_real(double value, std::string& out) {
  if (std::isfinite(value)) {
    append_number(value, out);
  } else {
    out += "null";
  }
}

void append_real(float value, std::string& out) {
  if (std::isfinite(value)) {
    append_number(value, out);
  } else {
    out += "null";
  }
}

template <class Array>
const Array& as(const arrow::Array& array) {
  return static_cast<const Array&>(array);
}

template <class Array>
void append_list(const arrow::Array& array, int64_t row, std::string& out, int depth) {
  const auto& list = as<Array>(array);
  const arrow::Array& values = *list.values();
  const int64_t begin = list.value_offset(row);
  const int64_t end = begin + list.value_length(row);
  out += '[';
  for (int64_t i = begin; i < end; ++i) {
    out += i > begin ? "," : "";
    append_json(values, i, out, depth + 1);
  }
  out += ']';
}

void append_struct(const arrow::Array& array, int64_t row, std::string& out, int depth) {
  const auto& whole = as<arrow::StructArray>(array);
  out += '{';
  for (int i = 0; i < whole.num_fields(); ++i) {
    out += i > 0 ? "," : "";
    append_json_string(whole.struct_type()->field(i)->name(), out);
    out += ':';
    append_json(*whole.field(i), row, out, depth + 1);
  }
  out += '}';
}

/// A map with text keys as an object.
void append_map(const arrow::Array& array, int64_t row, std::string& out, int depth) {
  const auto& map = as<arrow::MapArray>(array);
  if (map.keys()->type_id() != arrow::Type::STRING) {
    throw NoJsonForm(map.type()->ToString());
  }
  const auto& keys = as<arrow::StringArray>(*map.keys());
  out += '{';
  for (int64_t i = map.value_offset(row); i < map.value_offset(row + 1); ++i) {
    out += i > map.value_offset(row) ? "," : "";
    append_json_string(keys.GetView(i), out);
    out += ':';
    append_json(*map.items(), i, out, depth + 1);
  }
  out += '}';
}

/// Times, dates, decimals: as Arrow writes them.
void append_scalar(const arrow::Array& array, int64_t row, std::string& out) {
  const auto scalar = array.GetScalar(row);
  if (!scalar.ok()) {
    throw std::runtime_error(scalar.status().ToString());
  }
  append_json_string((*scalar)->ToString(), out);
}

/// Whether the value was a number or text.
bool append_plain(const arrow::Array& array, int64_t row, std::string& out) {
  switch (array.type_id()) {
    case arrow::Type::BOOL:
      out += as<arrow::BooleanArray>(array).Value(row) ? "true" : "false";
      return true;
    case arrow::Type::INT8:
      append_number(as<arrow::Int8Array>(array).Value(row), out);
      return true;
    case arrow::Type::INT16:
      append_number(as<arrow::Int16Array>(array).Value(row), out);
      return true;
    case arrow::Type::INT32:
      append_number(as<arrow::Int32Array>(array).Value(row), out);
      return true;
    case arrow::Type::INT64:
      append_number(as<arrow::Int64Array>(array).Value(row), out);
      return true;
    case arrow::Type::UINT8:
      append_number(as<arrow::UInt8Array>(array).Value(row), out);
      return true;
    case arrow::Type::UINT16:
      append_number(as<arrow::UInt16Array>(array).Value(row), out);
      return true;
    case arrow::Type::UINT32:
      append_number(as<arrow::UInt32Array>(array).Value(row), out);
      return true;
    case arrow::Type::UINT64:
      append_number(as<arrow::UInt64Array>(array).Value(row), out);
      return true;
    case arrow::Type::HALF_FLOAT:
      append_real(
          arrow::util::Float16::FromBits(as<arrow::HalfFloatArray>(array).Value(row)).ToFloat(),
          out);
      return true;
    case arrow::Type::FLOAT:
      append_real(as<arrow::FloatArray>(array).Value(row), out);
      return true;
    case arrow::Type::DOUBLE:
      append_real(as<arrow::DoubleArray>(array).Value(row), out);
      return true;
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      append_json_string(as<arrow::BinaryArray>(array).GetView(row), out);
      return true;
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      append_json_string(as<arrow::LargeBinaryArray>(array).GetView(row), out);
      return true;
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY_VIEW:
      append_json_string(as<arrow::BinaryViewArray>(array).GetView(row), out);
      return true;
    default:
      return false;
  }
}

void append_nested(const arrow::Array& array, int64_t row, std::string& out, int depth) {
  switch (array.type_id()) {
    case arrow::Type::LIST:
      return append_list<arrow::ListArray>(array, row, out, depth);
    case arrow::Type::LARGE_LIST:
      return append_list<arrow::LargeListArray>(array, row, out, depth);
    case arrow::Type::LIST_VIEW:
      return append_list<arrow::ListViewArray>(array, row, out, depth);
    case arrow::Type::LARGE_LIST_VIEW:
      return append_list<arrow::LargeListViewArray>(array, row, out, depth);
    case arrow::Type::FIXED_SIZE_LIST:
      return append_list<arrow::FixedSizeListArray>(array, row, out, depth);
    case arrow::Type::STRUCT:
      return append_struct(array, row, out, depth);
    case arrow::Type::MAP:
      return append_map(array, row, out, depth);
    case arrow::Type::DICTIONARY: {
      const auto& coded = as<arrow::DictionaryArray>(array);
      return append_json(*coded.dictionary(), coded.GetValueIndex(row), out, depth + 1);
    }
    case arrow::Type::EXTENSION:
      return append_json(*as<arrow::ExtensionArray>(array).storage(), row, out, depth + 1);
    case arrow::Type::DATE32:
    case arrow::Type::DATE64:
    case arrow::Type::TIME32:
    case arrow::Type::TIME64:
    case arrow::Type::TIMESTAMP:
    case arrow::Type::DURATION:
    case arrow::Type::DECIMAL32:
    case arrow::Type::DECIMAL64:
    case arrow::Type::DECIMAL128:
    case arrow::Type::DECIMAL256:
      return append_scalar(array, row, out);
    default:
      throw NoJsonForm(array.type()->ToString());
  }
}

}  // namespace

void append_json_string(std::string_view text, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  size_t done = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte >= 0x20 && byte != '"' && byte != '\\') {
      continue;
    }
    out.append(text, done, i - done);
    done = i + 1;
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += static_cast<char>(byte);
    } else if (byte == '\n') {
      out += "\\n";
    } else {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  out.append(text, done, text.size() - done);
  out += '"';
}

void append_json(const arrow::Array& array, int64_t row, std::string& out, int depth) {
  if (depth > kMaxDepth) {
    throw NoJsonForm("a type nested too deeply");
  }
  if (array.type_id() == arrow::Type::NA || array.IsNull(row)) {
    out += "null";
  } else if (!append_plain(array, row, out)) {
    append_nested(array, row, out, depth);
  }
}

}  // namespace kamerton::data::columnar
