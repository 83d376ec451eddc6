// SPDX-License-Identifier: Apache-2.0
// The rules of `data verify`, and counting who breaks them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kamerton/data/verify.h"

namespace kamerton::data {

enum class Rule : uint8_t {
  BadRecord,
  Template,
  TemplateDrops,
  ToolsDropped,
  TemplateForm,
  NoTarget,
  FewTargets,
  EndNeverTrained,
  EndRarelyTrained,
  DoubleBos,
  AnswerCut,
  TextCut,
  EmptyAnswer,
  OneTokenAnswer,
  OneLabel,
  LeakExact,
  LeakNear,
  DuplicateExact,
  DuplicateNear,
  ReplacementChar,
  Mojibake,
  ControlChar,
  SpecialMarker,
  MarkerInDocument,
  ForeignMarker,
  Email,
  Phone,
  Pesel,
  Iban,
  Card,
};
inline constexpr size_t kRules = static_cast<size_t>(Rule::Card) + 1;

/// Records by number: those of the training files, then those of the held-out files.
class Tally {
 public:
  static constexpr size_t kPlaces = 5;

  /// `remark` is added to the record's place: "(as train.jsonl:3)". Never text of the record. With
  /// a negative `record` the remark alone is the place.
  void add(Rule rule, int64_t record, std::string remark = {}, int64_t count = 1);
  /// Sums; the first places of both stay.
  void merge(const Tally& other);
  int64_t count(Rule rule) const { return seen_[static_cast<size_t>(rule)].count; }

  /// `place`: a record's "file:line"; `of`: records looked at, for shares that make a warning an
  /// error. `raise`: rules to report as errors in any case.
  std::vector<Finding> findings(const std::function<std::string(int64_t)>& place,
                                const std::function<int64_t(Rule)>& of,
                                const std::vector<Rule>& raise) const;

 private:
  struct Place {
    int64_t record = 0;
    std::string remark;
  };
  struct Seen {
    int64_t count = 0;
    std::vector<Place> first;  ///< ascending
  };
  static void keep(Seen& seen, Place place);

  std::array<Seen, kRules> seen_;
};

}  // namespace kamerton::data
