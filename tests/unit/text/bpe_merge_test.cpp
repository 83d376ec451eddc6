// SPDX-License-Identifier: Apache-2.0
// Windows of a long row beside one pass over the whole row.
#include "bpe_merge.h"

#include <chrono>
#include <iterator>
#include <list>
#include <map>
#include <random>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "support/case_count.h"

namespace kamerton::text {
namespace {

/// Merges over an alphabet of `letters`; ids below it are letters.
struct Table {
  struct Merge {
    uint32_t rank;
    int32_t whole;
  };
  std::map<std::pair<int32_t, int32_t>, Merge> merges;
  MergeMap map;
  std::vector<uint32_t> left_ranks;
  int letters = 2;

  void finish() {
    for (const auto& [pair, merge] : merges) {
      map.insert(pair.first, pair.second, merge.rank, merge.whole);
    }
    left_ranks = map.lowest_ranks_by_left();
  }
};

/// Tokens are joined of earlier ones; ranks are in order, shuffled, or shared by all splits of a
/// token, as files of each kind have them.
Table random_table(std::mt19937_64& random) {
  Table table;
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  table.letters = 1 + static_cast<int>(below(5));
  std::vector<std::string> tokens;
  std::map<std::string, int32_t> ids;
  for (int i = 0; i < table.letters; ++i) {
    tokens.push_back(std::string(1, static_cast<char>('a' + i)));
    ids[tokens.back()] = i;
  }
  const size_t wanted = 1 + below(60);
  const size_t kind = below(3);
  std::vector<uint32_t> ranks(wanted);
  for (size_t i = 0; i < wanted; ++i) {
    ranks[i] = static_cast<uint32_t>(i);
  }
  if (kind == 1) {
    std::shuffle(ranks.begin(), ranks.end(), random);
  }
  for (size_t i = 0; i < wanted; ++i) {
    const auto left = static_cast<int32_t>(below(tokens.size()));
    const auto right = static_cast<int32_t>(below(tokens.size()));
    const std::string whole = tokens[left] + tokens[right];
    const auto [at, fresh] = ids.try_emplace(whole, static_cast<int32_t>(tokens.size()));
    if (fresh) {
      tokens.push_back(whole);
    }
    table.merges[{left, right}] = {kind == 2 ? static_cast<uint32_t>(at->second) : ranks[i],
                                   at->second};
  }
  table.finish();
  return table;
}

std::vector<Symbol> random_row(const Table& table, size_t length, std::mt19937_64& random) {
  std::vector<Symbol> row;
  const bool repeats = random() % 4 == 0;
  const size_t period = 1 + random() % 7;
  for (size_t i = 0; i < length; ++i) {
    const bool again = repeats && i >= period && random() % 50 != 0;
    row.push_back({again ? row[i - period].id : static_cast<int32_t>(random() % table.letters), 1});
  }
  return row;
}

/// What the reference library does, as plainly as it can be said: an ordered set of candidates over
/// the whole row, of which those that no longer make the same token are left out.
std::vector<Symbol> merged_at_once(const Table& table, const std::vector<Symbol>& row) {
  std::list<Symbol> tokens(row.begin(), row.end());
  std::vector<std::list<Symbol>::iterator> at;
  for (auto it = tokens.begin(); it != tokens.end(); ++it) {
    at.push_back(it);
  }
  std::vector<char> gone(row.size(), 0);
  std::map<const Symbol*, size_t> place;
  for (size_t i = 0; i < at.size(); ++i) {
    place[&*at[i]] = i;
  }
  std::multiset<std::tuple<uint32_t, size_t, int32_t>> candidates;
  const auto look = [&](std::list<Symbol>::iterator left) {
    const auto right = std::next(left);
    if (right != tokens.end()) {
      if (const auto found = table.merges.find({left->id, right->id});
          found != table.merges.end()) {
        candidates.insert({found->second.rank, place[&*left], found->second.whole});
      }
    }
  };
  for (const auto& it : at) {
    look(it);
  }
  while (!candidates.empty()) {
    const auto [rank, position, whole] = *candidates.begin();
    candidates.erase(candidates.begin());
    if (gone[position] != 0 || std::next(at[position]) == tokens.end()) {
      continue;
    }
    const auto left = at[position];
    const auto right = std::next(left);
    const auto now = table.merges.find({left->id, right->id});
    if (now == table.merges.end() || now->second.whole != whole) {
      continue;
    }
    left->id = whole;
    left->length += right->length;
    gone[place[&*right]] = 1;
    tokens.erase(right);
    if (left != tokens.begin()) {
      look(std::prev(left));
    }
    look(left);
  }
  return {tokens.begin(), tokens.end()};
}

std::string text_of(const std::vector<Symbol>& row) {
  std::string text;
  for (const Symbol& symbol : row) {
    text += std::to_string(symbol.id) + ":" + std::to_string(symbol.length) + " ";
  }
  return text;
}

TEST(LongMerge, WindowsGiveWhatOnePassOverTheWholeRowGives) {
  const int cases = test::case_count(3000);
  for (int seed = 0; seed < cases; ++seed) {
    std::mt19937_64 random(static_cast<uint64_t>(seed));
    const Table table = random_table(random);
    const std::vector<Symbol> row = random_row(table, 1 + random() % 400, random);
    const size_t window = 2 + random() % 60;

    std::vector<Symbol> ours = row;
    LongMerge::Scratch scratch;
    LongMerge(table.map, table.left_ranks, scratch, window).run(ours);

    ASSERT_EQ(text_of(ours), text_of(merged_at_once(table, row)))
        << "seed " << seed << ", window " << window;
  }
}

TEST(LongMerge, ARowInWhichDoubtReachesEverywhereIsMergedAsAWhole) {
  // Each token merges with the letter behind it: nothing is settled before the end.
  Table table;
  table.letters = 1;
  for (int32_t i = 0; i < 5000; ++i) {
    table.merges[{i, 0}] = {static_cast<uint32_t>(5000 - i), i + 1};
  }
  table.finish();
  std::vector<Symbol> row(4000, Symbol{0, 1});
  const std::vector<Symbol> whole = merged_at_once(table, row);

  LongMerge::Scratch scratch;
  LongMerge(table.map, table.left_ranks, scratch, 16).run(row);

  EXPECT_EQ(text_of(row), text_of(whole));
}

TEST(LongMerge, AnEmptyRowStaysEmpty) {
  const Table table;
  std::vector<Symbol> row;
  LongMerge::Scratch scratch;
  LongMerge(table.map, table.left_ranks, scratch).run(row);
  EXPECT_TRUE(row.empty());
}

}  // namespace
}  // namespace kamerton::text
