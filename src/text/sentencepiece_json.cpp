// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "base64.h"
#include "sentencepiece.h"
#include "tokenizer_writer.h"

namespace kamerton::text {
namespace {

const char* yes_no(bool value) {
  return value ? "true" : "false";
}

std::string list_of(const SentencePieceModel& model, PieceType type) {
  std::string out = "[";
  for (const SentencePiece& piece : model.pieces) {
    if (piece.type == type) {
      out += (out.size() > 1 ? "," : "") + json_quoted(piece.text);
    }
  }
  return out + "]";
}

/// The library merges the pair whose piece has the highest score: rank 0 is the best one. Pieces of
/// one score share a rank; -1: no merge makes or takes this piece.
std::string ranks_text(const SentencePieceModel& model) {
  const auto& pieces = model.pieces;
  std::vector<size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return pieces[a].score > pieces[b].score;
  });
  std::vector<int64_t> ranks(pieces.size(), -1);
  int64_t rank = -1;
  float last = 0;
  for (const size_t id : order) {
    if (pieces[id].type != PieceType::Normal) {
      continue;
    }
    rank += rank < 0 || pieces[id].score != last ? 1 : 0;
    last = pieces[id].score;
    ranks[id] = rank;
  }
  return fmt::format("[{}]", fmt::join(ranks, ","));
}

std::string bpe_text(const SentencePieceModel& model) {
  std::vector<std::string> tokens;
  for (const SentencePiece& piece : model.pieces) {
    tokens.push_back(piece.text);
  }
  return fmt::format(
      R"({{"type":"BPE","unk_token":{},"fuse_unk":true,"byte_fallback":{},"vocab":{},"merges":[],)"
      R"("kamerton_ranks":{},"kamerton_symbols":{}}})",
      json_quoted(tokens[static_cast<size_t>(model.unk_id)]),
      yes_no(model.byte_fallback),
      vocab_text(tokens),
      ranks_text(model),
      list_of(model, PieceType::UserDefined));
}

std::string unigram_text(const SentencePieceModel& model) {
  std::string vocab = "[";
  std::vector<int> types;
  for (const SentencePiece& piece : model.pieces) {
    vocab += fmt::format("{}[{},{}]",
                         vocab.size() > 1 ? "," : "",
                         json_quoted(piece.text),
                         static_cast<double>(piece.score));
    types.push_back(static_cast<int>(piece.type));
  }
  return fmt::format(
      R"({{"type":"Unigram","unk_id":{},"byte_fallback":{},"vocab":{}],"kamerton_types":[{}]}})",
      model.unk_id,
      yes_no(model.byte_fallback),
      vocab,
      fmt::join(types, ","));
}

}  // namespace

std::string sentencepiece_json(const SentencePieceModel& model,
                               const std::string& added_tokens,
                               const std::string& post_processor) {
  TokenizerParts parts;
  parts.added_tokens = added_tokens;
  parts.post_processor = post_processor;
  parts.normalizer =
      fmt::format(R"({{"type":"kamerton.SentencePiece","charsmap":"{}","add_dummy_prefix":{},)"
                  R"("remove_extra_whitespaces":{},"symbols":{}}})",
                  encode_base64(model.charsmap),
                  yes_no(model.add_dummy_prefix),
                  yes_no(model.remove_extra_whitespaces),
                  list_of(model, PieceType::UserDefined));
  parts.decoder =
      fmt::format(R"({{"type":"kamerton.SentencePiece","hidden":{},"unknown":{},"unk_surface":{},)"
                  R"("strip_first":{},"strip_all":{}}})",
                  list_of(model, PieceType::Control),
                  json_quoted(model.pieces[static_cast<size_t>(model.unk_id)].text),
                  json_quoted(model.unk_surface),
                  yes_no(model.add_dummy_prefix || model.remove_extra_whitespaces),
                  yes_no(model.remove_extra_whitespaces));
  parts.model = model.kind == SentencePieceModel::Kind::Bpe ? bpe_text(model) : unigram_text(model);
  return parts.joined();
}

}  // namespace kamerton::text
