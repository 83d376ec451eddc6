// SPDX-License-Identifier: Apache-2.0
#include "duplicates.h"

#include <algorithm>
#include <unordered_map>

#include "kamerton/core/error.h"

#include "record_text.h"

namespace kamerton::data {
namespace {

constexpr int64_t kDuplicatesSample = 1000;  // records that stop shingles are found from
constexpr int64_t kSmallestSample = 20;
constexpr size_t kFewestShingles = 5;  // less tells too little about likeness
constexpr size_t kShortDocument = 32;  // bytes: headings and names repeat rightly

bool is_short_document(const Record& record) {
  return record.kind == Record::Kind::Text && record.completion.size() < kShortDocument;
}

/// An unreadable record has been reported by itself.
std::optional<Record> readable(const NumberedRecords& records, int64_t number) {
  try {
    return records.record(number);
  } catch (const core::Error& error) {
    if (error.kind() != core::ErrorKind::Data) {
      throw;
    }
    return std::nullopt;
  }
}

}  // namespace

Duplicates::Duplicates(const NumberedRecords& records,
                       const DataConfig& config,
                       const VerifyOptions& options)
    : records_(records),
      similarity_(options.similarity),
      equal_(records.total, options.memory_bytes / 8, config.index_dir),
      alike_(records.total * kBands, options.memory_bytes / 2, config.index_dir),
      known_(static_cast<size_t>(records.total), false) {
  find_stop_shingles();
}

void Duplicates::find_stop_shingles() {
  const int64_t count = std::min(kDuplicatesSample, records_.train);
  if (count < kSmallestSample) {
    return;
  }
  std::unordered_map<uint64_t, int64_t> seen;
  for (int64_t i = 0; i < count; ++i) {
    if (const auto record = readable(records_, records_.train * i / count)) {
      for (const uint64_t shingle : shingles_of(comparable_text(*record), {})) {
        ++seen[shingle];
      }
    }
  }
  for (const auto& [shingle, times] : seen) {
    if (times >= count / 5) {
      stop_.insert(shingle);
    }
  }
}

void Duplicates::add(int64_t number, const Record& record) {
  if (is_short_document(record)) {
    return;
  }
  const std::string text = comparable_text(record);
  const KeyedId equal{text_key(text), number};
  equal_.add({&equal, 1});
  const std::vector<uint64_t> set = shingles_of(text, stop_);
  if (set.size() < kFewestShingles) {
    return;
  }
  const auto keys = band_keys(set);
  std::array<KeyedId, kBands> pairs;
  for (size_t band = 0; band < kBands; ++band) {
    pairs[band] = {keys[band], number};
  }
  alike_.add(pairs);
}

void Duplicates::report(Tally& tally) {
  report_equal(tally);
  report_alike(tally);
}

void Duplicates::report_equal(Tally& tally) {
  equal_.for_each([&](std::span<const KeyedId> group) {
    const int64_t first = group.front().id;
    if (first >= records_.train) {
      return;  // within the held-out files
    }
    for (const KeyedId& pair : group.subspan(1)) {
      known_[static_cast<size_t>(pair.id)] = true;
      tally.add(pair.id < records_.train ? Rule::DuplicateExact : Rule::LeakExact,
                pair.id,
                "(as " + records_.place(first) + ")");
    }
  });
}

void Duplicates::report_alike(Tally& tally) {
  alike_.for_each([&](std::span<const KeyedId> group) { compare(group, tally); });
}

std::vector<uint64_t> Duplicates::shingles(int64_t number) const {
  const auto record = readable(records_, number);
  return record ? shingles_of(comparable_text(*record), stop_) : std::vector<uint64_t>();
}

void Duplicates::compare(std::span<const KeyedId> group, Tally& tally) {
  const auto fresh = std::find_if(group.begin(), group.end(), [&](const KeyedId& pair) {
    return !known_[static_cast<size_t>(pair.id)];
  });
  if (fresh == group.end() || fresh->id >= records_.train) {
    return;
  }
  std::vector<uint64_t> own;  // of the first, when it is needed
  for (auto pair = std::next(fresh); pair != group.end(); ++pair) {
    if (known_[static_cast<size_t>(pair->id)] || pair->id == fresh->id) {
      continue;
    }
    if (own.empty()) {
      own = shingles(fresh->id);
    }
    if (jaccard(own, shingles(pair->id)) < similarity_) {
      continue;
    }
    known_[static_cast<size_t>(pair->id)] = true;
    tally.add(pair->id < records_.train ? Rule::DuplicateNear : Rule::LeakNear,
              pair->id,
              "(like " + records_.place(fresh->id) + ")");
  }
}

void report_exact_leaks(const NumberedRecords& records, Tally& tally) {
  std::vector<KeyedId> train;
  for (int64_t number = 0; number < records.total; ++number) {
    if (number == records.train) {
      std::sort(train.begin(), train.end());
    }
    const auto record = readable(records, number);
    if (!record || is_short_document(*record)) {
      continue;
    }
    const KeyedId pair{text_key(comparable_text(*record)), number};
    if (number < records.train) {
      train.push_back(pair);
      continue;
    }
    const auto at = std::lower_bound(train.begin(), train.end(), KeyedId{pair.key, 0});
    if (at != train.end() && at->key == pair.key) {
      tally.add(Rule::LeakExact, number, "(as " + records.place(at->id) + ")");
    }
  }
}

}  // namespace kamerton::data
