// SPDX-License-Identifier: Apache-2.0
// llama.cpp's model files: metadata, tensor list, and quantised blocks turned back into floats.
// Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/storage/mapped_file.h"

namespace kamerton::storage {

/// ggml's numbers for element types; only those listed here are read.
enum class GgmlType : uint32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  BF16 = 30,
};

/// "F32", "Q4_1", ...
std::string_view name_of(GgmlType type) noexcept;

/// One tensor. `shape` is row-major, outermost first, as Hugging Face writes it (the file has it
/// reversed). Note for importers: in "llama" files the rows of attn_q.weight and attn_k.weight are
/// permuted with respect to Hugging Face's (rotary pairs interleaved instead of half-split). Per
/// head of d rows, file row 2*i + j is Hugging Face row j*(d/2) + i (i < d/2, j < 2). Undoing this
/// is the importer's task; this reader gives the file's order.
struct GgufTensor {
  std::string name;
  GgmlType type = GgmlType::F32;
  std::vector<int64_t> shape;
  int64_t num_elements = 0;
  uint64_t offset = 0;  ///< bytes from the start of the file
  uint64_t size = 0;    ///< bytes

  int64_t row_length() const { return shape.empty() ? 1 : shape.back(); }
  int64_t num_rows() const { return row_length() == 0 ? 0 : num_elements / row_length(); }
};

/// A GGUF file, memory-mapped. Everything read from it is bounds-checked: counts, string lengths,
/// array types and nesting, alignment, offsets, overlap. Errors: ErrorKind::Data naming the key or
/// tensor, the value and the limit.
class GgufFile {
 public:
  static GgufFile open(const std::filesystem::path& path);
  /// The same checks on bytes in memory (tests); they must outlive the object.
  static GgufFile parse(std::span<const std::byte> bytes, const std::string& origin);

  const std::string& origin() const { return origin_; }
  uint32_t version() const { return version_; }
  /// All key-value pairs in file order, as one JSON object: integers, floats, bools, strings,
  /// arrays of them.
  const core::Json& metadata() const;
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// nullptr when there is no such tensor.
  const GgufTensor* find(std::string_view name) const;
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;

  /// Rows [first_row, first_row + num_rows) of a tensor as floats, into `output` (num_rows *
  /// row_length() elements). Thread-safe: callers split the rows over threads. Throws Internal for
  /// rows outside the tensor or a wrong buffer.
  void read_rows(const GgufTensor& tensor,
                 int64_t first_row,
                 int64_t num_rows,
                 std::span<float> output) const;

 private:
  void read(const std::string& origin);

  MappedFile file_;
  std::span<const std::byte> bytes_;
  std::string origin_;
  uint32_t version_ = 0;
  std::shared_ptr<const core::Json> metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
};

/// Elements and bytes of one block of a type (1 and the element's size when it is not quantised).
struct GgmlBlock {
  int64_t num_elements;
  uint64_t size;
};
GgmlBlock block_of(GgmlType type) noexcept;

/// Whole blocks to floats: output.size() must be a multiple of the block, blocks.size() the bytes
/// for it.
void dequantise(GgmlType type, std::span<const std::byte> blocks, std::span<float> output);

}  // namespace kamerton::storage
