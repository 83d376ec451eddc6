// SPDX-License-Identifier: Apache-2.0
// What a checkpoint contains: files with digests, tensors, and where their elements lie. Bytes:
// ../FORMAT.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/storage/dtype.h"

namespace kamerton::checkpoint {

inline constexpr int kFormatVersion = 1;

struct FileRecord {
  std::string name;  ///< within the checkpoint's folder
  uint64_t size = 0;
  std::string digest;  ///< storage::tree_digest_of_file, in hexadecimal
};

/// Elements [offset, offset + length) of the flattened tensor. In its file they follow the same
/// tensor's pieces of smaller offset, from element `at` of the dataset on (`at` is derived, not
/// stored).
struct Piece {
  int file = 0;
  int64_t offset = 0;
  int64_t length = 0;
  int64_t at = 0;
};

struct TensorRecord {
  std::string name;
  storage::DType dtype = storage::DType::F32;
  std::vector<int64_t> shape;
  std::vector<Piece> pieces;  ///< ordered by offset; together the whole tensor, once
  int64_t num_elements() const;
};

/// One rank's share, sent to rank 0: its file and the tensors in it (pieces' file numbers are
/// meaningless here).
struct RankPart {
  FileRecord file;
  std::vector<TensorRecord> tensors;
};

struct Manifest {
  int64_t step = 0;
  int world_size = 0;
  std::string program_version;
  std::vector<FileRecord>
      files;  ///< one a rank, in rank order; then index.h5 and others, which hold no pieces
  std::vector<TensorRecord> tensors;  ///< ordered by name
  core::Json extra;

  /// nullptr when there is no such tensor.
  const TensorRecord* find(std::string_view name) const;
};

std::string to_text(const RankPart& part);
RankPart parse_rank_part(std::string_view text, const std::string& origin);

/// Puts the ranks' shares together, in rank order. Internal naming the tensor when elements are
/// missing or doubled, or ranks disagree on dtype or shape.
Manifest assemble(std::vector<RankPart> parts);

/// The file's text, with the digest of its own body.
std::string to_text(const Manifest& manifest);

/// Everything is checked: the body's digest, types, ranges, coverage. Data naming `origin` and the
/// fault.
Manifest parse_manifest(std::string_view text, const std::string& origin);

}  // namespace kamerton::checkpoint
