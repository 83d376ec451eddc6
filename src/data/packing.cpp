// SPDX-License-Identifier: Apache-2.0
#include "packing.h"

#include <algorithm>
#include <deque>
#include <map>

namespace kamerton::data {
namespace {

/// Examples in pieces of at most a row, in order.
std::vector<Piece> pieces_of(std::span<const int32_t> lengths,
                             int32_t row_length,
                             LongExamples long_examples) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const int32_t end =
        long_examples == LongExamples::Cut ? std::min(lengths[i], row_length) : lengths[i];
    int32_t number = 0;
    for (int32_t begin = 0; begin < end; begin += row_length) {
      pieces.push_back({.element = static_cast<int32_t>(i),
                        .begin = begin,
                        .length = std::min(row_length, end - begin),
                        .number = number++});
    }
  }
  return pieces;
}

void sort_longest_first(std::vector<Piece>& pieces) {
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.length > b.length;
  });
}

}  // namespace

RowPlan pack_best_fit(std::span<const int32_t> lengths,
                      int32_t row_length,
                      LongExamples long_examples) {
  std::vector<Piece> pieces = pieces_of(lengths, row_length, long_examples);
  sort_longest_first(pieces);
  std::vector<std::vector<Piece>> rows;
  std::map<int32_t, std::deque<size_t>> by_room;  // rows with room, in the order they came to it
  for (const Piece& piece : pieces) {
    const auto fit = by_room.lower_bound(piece.length);
    size_t row = rows.size();
    int32_t room = row_length;
    if (fit == by_room.end()) {
      rows.emplace_back();
    } else {
      room = fit->first;
      row = fit->second.front();
      fit->second.pop_front();
      if (fit->second.empty()) {
        by_room.erase(fit);
      }
    }
    rows[row].push_back(piece);
    if (room > piece.length) {
      by_room[room - piece.length].push_back(row);
    }
  }
  RowPlan plan;
  for (const std::vector<Piece>& row : rows) {
    std::for_each(row.begin(), row.end(), [&](const Piece& piece) { plan.add(piece); });
    plan.end_row();
  }
  return plan;
}

RowPlan pack_wrapped(std::span<const int32_t> lengths, int32_t row_length) {
  RowPlan plan;
  int32_t used = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    int32_t number = 0;
    for (int32_t begin = 0; begin < lengths[i];) {
      const int32_t length = std::min(row_length - used, lengths[i] - begin);
      plan.add({.element = static_cast<int32_t>(i),
                .begin = begin,
                .length = length,
                .number = number++});
      begin += length;
      used += length;
      if (used == row_length) {
        plan.end_row();
        used = 0;
      }
    }
  }
  if (used > 0) {
    plan.end_row();
  }
  return plan;
}

RowPlan order_by_length(std::span<const int32_t> lengths) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] > 0) {
      pieces.push_back(
          {.element = static_cast<int32_t>(i), .begin = 0, .length = lengths[i], .number = 0});
    }
  }
  sort_longest_first(pieces);
  RowPlan plan;
  for (const Piece& piece : pieces) {
    plan.add(piece);
    plan.end_row();
  }
  return plan;
}

}  // namespace kamerton::data
