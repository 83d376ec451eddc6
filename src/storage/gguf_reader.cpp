// SPDX-License-Identifier: Apache-2.0
#include "gguf_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <unordered_set>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/storage/dtype.h"

namespace kamerton::storage {
namespace {

constexpr uint64_t kMaxPairs = 65'536;
constexpr uint64_t kGgufReaderMaxTensors = 1'000'000;
constexpr uint64_t kMaxKeyBytes = 65'535;  // the format's own limit
constexpr uint64_t kGgufReaderMaxNameBytes = 1'024;
constexpr uint64_t kMaxTextBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxValues = uint64_t{16}
                                << 20;  // over all arrays: a value costs 16 bytes in memory
constexpr int kMaxNesting = 3;
constexpr uint32_t kGgufReaderMaxDims = 4;  // ggml's GGML_MAX_DIMS
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;

// Value types of the format.
enum ValueType : uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64 };

/// The fewest bytes that a value can take; 0 for an unknown type.
uint64_t least_bytes(uint32_t type) {
  constexpr uint64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return type < std::size(kBytes) ? kBytes[type] : 0;
}

std::optional<GgmlType> type_from(uint32_t number) {
  switch (static_cast<GgmlType>(number)) {
    case GgmlType::F32:
    case GgmlType::F16:
    case GgmlType::Q4_0:
    case GgmlType::Q4_1:
    case GgmlType::Q5_0:
    case GgmlType::Q5_1:
    case GgmlType::Q8_0:
    case GgmlType::Q4_K:
    case GgmlType::Q5_K:
    case GgmlType::Q6_K:
    case GgmlType::BF16:
      return static_cast<GgmlType>(number);
  }
  return std::nullopt;
}

}  // namespace

void GgufReader::reject(const std::string& what,
                        const std::string& got,
                        const std::string& allowed) const {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "storage.gguf",
                     .what = "'" + origin_ + "': " + what,
                     .got = got,
                     .allowed = allowed,
                     .hint = "fetching the file again, or a file of a supported kind"});
}

void GgufReader::need(uint64_t size, std::string_view what) const {
  if (size > remaining()) {
    reject("the file ends within " + std::string(what) + " at byte " + std::to_string(at_),
           std::to_string(remaining()) + " bytes left",
           std::to_string(size) + " or more");
  }
}

template <typename T>
T GgufReader::number(std::string_view what) {
  static_assert(std::endian::native == std::endian::little,
                "files are little-endian, and so are our machines");
  need(sizeof(T), what);
  T value;
  std::memcpy(&value, bytes_.data() + at_, sizeof(T));
  at_ += sizeof(T);
  return value;
}

std::string GgufReader::text(std::string_view what, uint64_t max_bytes) {
  const auto length = number<uint64_t>(what);
  if (length > max_bytes) {
    reject(std::string(what) + " is too long, at byte " + std::to_string(at_ - 8),
           std::to_string(length) + " bytes",
           "at most " + std::to_string(max_bytes));
  }
  need(length, what);
  std::string result(reinterpret_cast<const char*>(bytes_.data() + at_), length);
  at_ += length;
  return result;
}

void GgufReader::read_preamble(uint64_t& num_tensors, uint64_t& num_pairs) {
  need(4, "its magic");
  if (std::memcmp(bytes_.data(), "GGUF", 4) != 0) {
    reject("it does not begin with 'GGUF'", "other bytes", "a GGUF file");
  }
  at_ = 4;
  version = number<uint32_t>("its version");
  if (version < 2 || version > 3) {
    const bool swapped = (version & 0xffffU) == 0 && version != 0;
    reject(swapped ? "it is big-endian" : "its version is not supported",
           std::to_string(version),
           "2 or 3, little-endian");
  }
  num_tensors = number<uint64_t>("the number of tensors");
  num_pairs = number<uint64_t>("the number of metadata pairs");
  // Every tensor takes at least 24 bytes, every pair 13: counts beyond the file are refused before
  // anything is reserved.
  if (num_tensors > std::min(kGgufReaderMaxTensors, remaining() / 24)) {
    reject("the number of tensors cannot be",
           std::to_string(num_tensors),
           "at most " + std::to_string(std::min(kGgufReaderMaxTensors, remaining() / 24)));
  }
  if (num_pairs > std::min(kMaxPairs, remaining() / 13)) {
    reject("the number of metadata pairs cannot be",
           std::to_string(num_pairs),
           "at most " + std::to_string(std::min(kMaxPairs, remaining() / 13)));
  }
}

core::Json GgufReader::array(const std::string& key, int depth) {
  const std::string what = "the array '" + key + "'";
  const auto type = number<uint32_t>(what);
  const auto count = number<uint64_t>(what);
  const uint64_t least = least_bytes(type);
  if (least == 0) {
    reject(what + " has values of an unknown type", std::to_string(type), "0 to 12");
  }
  if (type == ValueType::Array && depth >= kMaxNesting) {
    reject(what + " is nested too deeply",
           std::to_string(depth + 1),
           "at most " + std::to_string(kMaxNesting));
  }
  if (count > remaining() / least || count > kMaxValues - num_values_) {
    reject(what + " cannot have so many values",
           std::to_string(count),
           "at most " + std::to_string(std::min(remaining() / least, kMaxValues - num_values_)));
  }
  num_values_ += count;
  auto list = core::Json::array();
  auto& values = list.get_ref<core::Json::array_t&>();
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    values.push_back(value(type, key, depth + 1));
  }
  return list;
}

core::Json GgufReader::value(uint32_t type, const std::string& key, int depth) {
  switch (type) {
    case ValueType::U8:
      return number<uint8_t>(key);
    case ValueType::I8:
      return number<int8_t>(key);
    case ValueType::U16:
      return number<uint16_t>(key);
    case ValueType::I16:
      return number<int16_t>(key);
    case ValueType::U32:
      return number<uint32_t>(key);
    case ValueType::I32:
      return number<int32_t>(key);
    case ValueType::U64:
      return number<uint64_t>(key);
    case ValueType::I64:
      return number<int64_t>(key);
    case ValueType::F32:
      return number<float>(key);
    case ValueType::F64:
      return number<double>(key);
    case ValueType::Text:
      return text(key, kMaxTextBytes);
    case ValueType::Array:
      return array(key, depth);
    case ValueType::Bool: {
      const auto byte = number<uint8_t>(key);
      if (byte > 1) {
        reject("'" + key + "' is no boolean", std::to_string(byte), "0 or 1");
      }
      return byte == 1;
    }
    default:
      reject("'" + key + "' has an unknown type", std::to_string(type), "0 to 12");
  }
}

void GgufReader::read_metadata(uint64_t num_pairs) {
  metadata = core::Json::object();
  auto& pairs = metadata.get_ref<core::Json::object_t&>();
  pairs.reserve(num_pairs);
  std::unordered_set<std::string> seen;
  for (uint64_t i = 0; i < num_pairs; ++i) {
    auto key = text("a metadata key", kMaxKeyBytes);
    if (key.empty() || !seen.insert(key).second) {
      reject("a metadata key is empty or occurs twice",
             "'" + key.substr(0, 200) + "'",
             "each key once");
    }
    const auto type = number<uint32_t>(key);
    auto parsed = value(type, key, 0);
    // emplace_back, not emplace: the ordered map would search all earlier keys each time.
    pairs.emplace_back(std::move(key), std::move(parsed));
  }
}

GgufTensor GgufReader::tensor() {
  GgufTensor result;
  result.name = text("a tensor's name", kGgufReaderMaxNameBytes);
  const std::string what = "tensor '" + result.name + "'";
  const auto num_dims = number<uint32_t>(what);
  if (num_dims > kGgufReaderMaxDims) {
    reject(what + " has too many dimensions",
           std::to_string(num_dims),
           "at most " + std::to_string(kGgufReaderMaxDims));
  }
  for (uint32_t i = 0; i < num_dims; ++i) {
    result.shape.insert(result.shape.begin(), number<int64_t>(what));
  }
  const auto type_number = number<uint32_t>(what);
  const auto type = type_from(type_number);
  if (!type) {
    reject(what + " has a type that is not supported",
           "type " + std::to_string(type_number),
           "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K");
  }
  result.type = *type;
  result.offset = number<uint64_t>(what);
  const auto num_elements = checked_num_elements(result.shape);
  const auto block = block_of(result.type);
  if (!num_elements) {
    reject(what + " has a shape that overflows", "", "63 bits of elements");
  }
  if (result.row_length() % block.num_elements != 0) {
    reject(what + " has rows that are no whole blocks",
           std::to_string(result.row_length()) + " elements",
           "a multiple of " + std::to_string(block.num_elements));
  }
  result.num_elements = *num_elements;
  if (__builtin_mul_overflow(
          static_cast<uint64_t>(*num_elements / block.num_elements), block.size, &result.size)) {
    reject(what + " has a size that overflows", "", "64 bits of bytes");
  }
  return result;
}

/// Offsets count from the first aligned byte after the tensor list; here they become offsets in the
/// file.
void GgufReader::place_tensors() {
  uint64_t alignment = 32;
  if (const auto* given = core::json_find(metadata, "general.alignment"); given != nullptr) {
    alignment = given->is_number_unsigned() ? given->get<uint64_t>() : 0;
    if (alignment == 0 || alignment % 8 != 0 || alignment > kMaxAlignment) {
      reject("general.alignment cannot be",
             given->dump().substr(0, 50),
             "a multiple of 8 up to " + std::to_string(kMaxAlignment));
    }
  }
  const uint64_t data = (at_ + alignment - 1) / alignment * alignment;
  const uint64_t available = data < bytes_.size() ? bytes_.size() - data : 0;
  std::vector<const GgufTensor*> by_offset;
  for (auto& tensor : tensors) {
    const std::string what = "tensor '" + tensor.name + "'";
    if (tensor.offset % alignment != 0) {
      reject(what + " is not aligned",
             std::to_string(tensor.offset),
             "a multiple of " + std::to_string(alignment));
    }
    if (tensor.size > available || tensor.offset > available - tensor.size) {
      reject(what + " lies beyond the end of the file",
             std::to_string(bytes_.size()) + " bytes in the file",
             "offset " + std::to_string(tensor.offset) + " + " + std::to_string(tensor.size) +
                 " after byte " + std::to_string(data));
    }
    tensor.offset += data;
    by_offset.push_back(&tensor);
  }
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* a, const auto* b) {
    return a->offset != b->offset ? a->offset < b->offset : a->size < b->size;
  });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const auto& before = *by_offset[i - 1];
    if (before.offset + before.size > by_offset[i]->offset) {
      reject("tensors '" + before.name + "' and '" + by_offset[i]->name + "' overlap",
             std::to_string(by_offset[i]->offset),
             std::to_string(before.offset + before.size) + " or more");
    }
  }
}

void GgufReader::read() {
  uint64_t num_tensors = 0;
  uint64_t num_pairs = 0;
  read_preamble(num_tensors, num_pairs);
  read_metadata(num_pairs);
  tensors.reserve(num_tensors);
  for (uint64_t i = 0; i < num_tensors; ++i) {
    tensors.push_back(tensor());
  }
  place_tensors();
}

}  // namespace kamerton::storage
