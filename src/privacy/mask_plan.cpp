// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/mask_plan.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "kamerton/privacy/wire.h"

#include "chacha.h"

namespace kamerton::privacy {
namespace {

static_assert(std::endian::native == std::endian::little);  // streams are read as words

constexpr uint16_t kMaskPlanKind = 16;
constexpr uint16_t kMaskPlanVersion = 1;
constexpr size_t kPieceBytes = size_t{1} << 16;
constexpr size_t kMaxTerms = size_t{1} << 24;

template <class Word>
void apply_term(const MaskPlan::Term& term,
                std::span<Word> values,
                uint64_t first,
                uint64_t lane,
                std::vector<Word>& stream) {
  constexpr uint64_t kPerBlock = kChachaBlock / sizeof(Word);
  size_t done = 0;
  while (done < values.size()) {
    const uint64_t at = first + done;
    const size_t skip = at % kPerBlock;
    const size_t piece = std::min(values.size() - done, stream.size() - skip);
    chacha_stream(term.seed,
                  lane,
                  at / kPerBlock,
                  {reinterpret_cast<uint8_t*>(stream.data()), (skip + piece) * sizeof(Word)});
    Word* out = values.data() + done;
    const Word* mask = stream.data() + skip;
    if (term.add) {
      for (size_t i = 0; i < piece; ++i) {
        out[i] = static_cast<Word>(out[i] + mask[i]);
      }
    } else {
      for (size_t i = 0; i < piece; ++i) {
        out[i] = static_cast<Word>(out[i] - mask[i]);
      }
    }
    done += piece;
  }
}

template <class Word>
void apply_all(const std::vector<MaskPlan::Term>& terms,
               std::span<Word> values,
               uint64_t first,
               uint64_t lane) {
  constexpr size_t kPiece = kPieceBytes / sizeof(Word);
  std::vector<Word> stream(kPiece);
  // Piece by piece, so that the values stay in the cache while all terms pass over them.
  for (size_t begin = 0; begin < values.size(); begin += kPiece) {
    const auto piece = values.subspan(begin, std::min(kPiece, values.size() - begin));
    for (const MaskPlan::Term& term : terms) {
      apply_term(term, piece, first + begin, lane, stream);
    }
  }
  wipe(stream.data(), stream.size() * sizeof(Word));
}

}  // namespace

void MaskPlan::apply(std::span<uint32_t> values, uint64_t first, uint64_t lane) const {
  apply_all(terms_, values, first, lane);
}

void MaskPlan::apply(std::span<uint64_t> values, uint64_t first, uint64_t lane) const {
  apply_all(terms_, values, first, lane);
}

std::string MaskPlan::encode() const {
  WireWriter writer(kMaskPlanKind, kMaskPlanVersion);
  writer.u32(static_cast<uint32_t>(terms_.size()));
  for (const Term& term : terms_) {
    writer.u8(term.add ? 1 : 0);
    writer.raw(term.seed.bytes());
  }
  return writer.take();
}

MaskPlan MaskPlan::decode(std::string_view bytes) {
  WireReader reader(bytes, kMaskPlanKind, kMaskPlanVersion, "a mask plan");
  MaskPlan plan;
  plan.terms_.resize(reader.count(kMaxTerms, 1 + Secret::kBytes));
  for (Term& term : plan.terms_) {
    const uint8_t sign = reader.u8();
    if (sign > 1) {
      reader.refuse("a sign is neither plus nor minus", std::to_string(sign));
    }
    term.add = sign == 1;
    reader.raw({term.seed.data(), Secret::kBytes});
  }
  reader.finish();
  return plan;
}

}  // namespace kamerton::privacy
