// SPDX-License-Identifier: Apache-2.0
#include "sentencepiece.h"

#include <cmath>
#include <cstring>
#include <optional>

#include "json_reader.h"
#include "token_map.h"
#include "unicode.h"

namespace kamerton::text {
namespace {

/// One field of a protobuf message: a number (varint, fixed) or bytes.
struct Field {
  uint32_t number = 0;
  uint32_t wire = 0;
  uint64_t value = 0;
  std::string_view bytes;
};

constexpr uint32_t kVarint = 0;
constexpr uint32_t kFixed64 = 1;
constexpr uint32_t kBytes = 2;
constexpr uint32_t kFixed32 = 5;

/// Walks over the fields of a message.
class Message {
 public:
  Message(std::string_view bytes, const std::string& origin) : rest_(bytes), origin_(origin) {}

  std::optional<Field> next() {
    if (rest_.empty()) {
      return std::nullopt;
    }
    Field field;
    const uint64_t tag = varint();
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire = static_cast<uint32_t>(tag & 7);
    if (field.number == 0 || tag >> 32 != 0) {
      damaged();
    }
    switch (field.wire) {
      case kVarint:
        field.value = varint();
        break;
      case kFixed64:
      case kFixed32:
        field.bytes = take(field.wire == kFixed32 ? 4 : 8);
        std::memcpy(&field.value, field.bytes.data(), field.bytes.size());
        break;
      case kBytes:
        field.bytes = take(varint());
        break;
      default:
        damaged();
    }
    return field;
  }

 private:
  [[noreturn]] void damaged() const { refuse(origin_, "the SentencePiece model is damaged"); }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) == 0) {
        return value;
      }
    }
    damaged();
  }
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) {
      refuse(origin_, "the SentencePiece model is cut off");
    }
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
  const std::string& origin_;
};

SentencePiece read_piece(std::string_view bytes, const std::string& origin) {
  SentencePiece piece;
  Message message(bytes, origin);
  while (const auto field = message.next()) {
    if (field->number == 1 && field->wire == kBytes) {
      piece.text = field->bytes;
    } else if (field->number == 2 && field->wire == kFixed32) {
      const auto bits = static_cast<uint32_t>(field->value);
      std::memcpy(&piece.score, &bits, sizeof bits);
    } else if (field->number == 3 && field->wire == kVarint) {
      if (field->value < 1 || field->value > 6) {
        refuse(origin, "a piece's type is not known", std::to_string(field->value));
      }
      piece.type = static_cast<PieceType>(field->value);
    }
  }
  if (piece.text.empty() || valid_prefix(piece.text) != piece.text.size() ||
      !std::isfinite(piece.score)) {
    refuse(origin, "a piece is empty, not UTF-8, or its score is not finite", piece.text);
  }
  return piece;
}

void read_trainer(SentencePieceModel& model, std::string_view bytes, const std::string& origin) {
  Message message(bytes, origin);
  while (const auto field = message.next()) {
    const auto number = static_cast<int32_t>(static_cast<int64_t>(field->value));
    switch (field->number) {
      case 3:
        if (field->value != 1 && field->value != 2) {
          refuse(origin, "only Unigram and BPE models of SentencePiece are supported");
        }
        model.kind = static_cast<SentencePieceModel::Kind>(field->value);
        break;
      case 24:
        if (field->value != 0) {
          refuse(origin, "a SentencePiece model with blanks as suffixes is not supported");
        }
        break;
      case 35:
        model.byte_fallback = field->value != 0;
        break;
      case 40:
        model.unk_id = number;
        break;
      case 41:
        model.bos_id = number;
        break;
      case 42:
        model.eos_id = number;
        break;
      case 43:
        model.pad_id = number;
        break;
      case 44:
        model.unk_surface = to_valid_utf8(field->bytes);
        break;
      default:
        break;
    }
  }
}

void read_normalizer(SentencePieceModel& model, std::string_view bytes, const std::string& origin) {
  Message message(bytes, origin);
  while (const auto field = message.next()) {
    if (field->number == 2) {
      model.charsmap = field->bytes;
    } else if (field->number == 3) {
      model.add_dummy_prefix = field->value != 0;
    } else if (field->number == 4) {
      model.remove_extra_whitespaces = field->value != 0;
    } else if (field->number == 5) {
      model.escape_whitespaces = field->value != 0;
    }
  }
}

void check(const SentencePieceModel& model, const std::string& origin) {
  TokenMap seen;
  seen.reserve(model.pieces.size());
  int unknown = 0;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    if (!seen.insert(piece.text, static_cast<int32_t>(id))) {
      refuse(origin, "a piece appears twice", piece.text);
    }
    unknown += piece.type == PieceType::Unknown ? 1 : 0;
    if (piece.type == PieceType::Unused && model.kind == SentencePieceModel::Kind::Bpe) {
      refuse(origin, "a BPE model with unused pieces is not supported", piece.text);
    }
  }
  const auto size = static_cast<int64_t>(model.pieces.size());
  if (unknown != 1 || model.unk_id < 0 || model.unk_id >= size ||
      model.pieces[static_cast<size_t>(model.unk_id)].type != PieceType::Unknown) {
    refuse(origin, "a SentencePiece model must have one unknown piece, at unk_id");
  }
  if (!model.escape_whitespaces) {
    refuse(origin, "a SentencePiece model that does not write blanks as U+2581 is not supported");
  }
}

}  // namespace

SentencePieceModel SentencePieceModel::parse(std::string_view bytes, const std::string& origin) {
  SentencePieceModel model;
  Message message(bytes, origin);
  while (const auto field = message.next()) {
    if (field->wire != kBytes) {
      continue;
    }
    if (field->number == 1) {
      model.pieces.push_back(read_piece(field->bytes, origin));
    } else if (field->number == 2) {
      read_trainer(model, field->bytes, origin);
    } else if (field->number == 3) {
      read_normalizer(model, field->bytes, origin);
    }
  }
  check(model, origin);
  return model;
}

bool SentencePieceModel::looks_like(std::string_view bytes) {
  // Field 1, a message that begins with its own field 1.
  return bytes.size() > 4 && bytes[0] == '\x0A' &&
         (bytes[2] == '\x0A' ||
          (static_cast<unsigned char>(bytes[1]) >= 0x80 && bytes[3] == '\x0A'));
}

}  // namespace kamerton::text
