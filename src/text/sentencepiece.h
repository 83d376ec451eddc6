// SPDX-License-Identifier: Apache-2.0
// SentencePiece's .model files: the protobuf message ModelProto of sentencepiece_model.proto.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kamerton::text {

enum class PieceType {
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6
};

struct SentencePiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::Normal;
};

struct SentencePieceModel {
  enum class Kind { Unigram = 1, Bpe = 2 };
  std::vector<SentencePiece> pieces;
  Kind kind = Kind::Unigram;
  bool byte_fallback = false;
  int32_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;
  std::string unk_surface = " \u2047 ";
  std::string charsmap;  ///< compiled normalization table, empty where there is none
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;

  /// Throws ErrorKind::Data on a damaged message and on models that are neither Unigram nor BPE.
  static SentencePieceModel parse(std::string_view bytes, const std::string& origin);
  /// Whether the bytes begin as such a message does.
  static bool looks_like(std::string_view bytes);
};

/// The model as a tokenizer.json that encodes and decodes as the sentencepiece library does; it
/// holds components of our own ("kamerton.SentencePiece"). `added_tokens` and `post_processor`:
/// JSON texts of what the library knows nothing of.
std::string sentencepiece_json(const SentencePieceModel& model,
                               const std::string& added_tokens = "[]",
                               const std::string& post_processor = "null");

}  // namespace kamerton::text
