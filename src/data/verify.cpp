// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/verify.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"
#include "kamerton/text/template_lint.h"

#include "dataset_impl.h"
#include "duplicates.h"
#include "findings.h"
#include "impl_access.h"
#include "record_check.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr int64_t kBlock = 64;           // records a thread takes at once
constexpr int64_t kCloselyLooked = 256;  // records whose rendering is compared with their texts
constexpr int64_t kQuickSample = 256;
constexpr int64_t kQuickLeakBytes = int64_t{16} << 20;

/// Opens a set without the checks that would end the command at its first fault; a fault of the
/// file's form goes to the tally.
Dataset open_leniently(bool held_out,
                       const DataConfig& config,
                       const text::TokenizerBundle& bundle,
                       int64_t max_positions,
                       Tally& tally) {
  DataConfig lenient = config;
  lenient.verify = "off";
  lenient.store = "off";
  lenient.check_bytes = 0;
  const auto open = [&] {
    return held_out ? open_eval(lenient, bundle, max_positions)
                    : open_train(lenient, bundle, max_positions);
  };
  try {
    return open();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data || lenient.on_bad_record == "skip") {
      throw;
    }
    lenient.on_bad_record = "skip";
    lenient.max_bad_records = std::numeric_limits<int64_t>::max();
    Dataset set = open();
    const std::string text = error.what();
    const size_t begin = text.find("] ") == std::string::npos ? 0 : text.find("] ") + 2;
    tally.add(Rule::BadRecord,
              -1,
              text.substr(begin, text.find("; try ") - begin),
              std::max<int64_t>(set.impl().sources.bad_records(), 1));
    return set;
  }
}

/// Training and held-out records under one numbering.
struct Sets {
  const Dataset* train = nullptr;
  const Dataset* eval = nullptr;

  int64_t train_size() const { return train->impl().sources.size(); }
  int64_t size() const { return train_size() + (eval ? eval->impl().sources.size() : 0); }
  const Dataset& of(int64_t number) const { return number < train_size() ? *train : *eval; }
  int64_t index(int64_t number) const {
    return number < train_size() ? number : number - train_size();
  }
  std::string place(int64_t number) const {
    return of(number).impl().sources.origin(index(number));
  }
  NumberedRecords numbered() const {
    const Sets sets = *this;
    return {.train = train_size(),
            .total = size(),
            .record = [sets](int64_t n) { return sets.of(n).impl().sources.record(sets.index(n)); },
            .place = [sets](int64_t n) { return sets.place(n); }};
  }
};

struct Totals {
  Tally tally;
  RecordSums train;
  RecordSums eval;
};

/// Looks at every record, in blocks that threads take in turn.
class Pass {
 public:
  Pass(const Sets& sets, Duplicates* duplicates)
      : sets_(sets), duplicates_(duplicates), train_(sets.train->impl()) {
    if (sets.eval != nullptr) {
      eval_.emplace(sets.eval->impl());
    }
    stride_ = std::max<int64_t>(sets.size() / kCloselyLooked, 1);
  }

  void run(int threads, Totals& totals) {
    std::vector<Totals> parts(static_cast<size_t>(std::max(threads, 1)));
    std::vector<std::exception_ptr> failures(parts.size());
    std::vector<std::thread> pool;
    for (size_t w = 0; w < parts.size(); ++w) {
      pool.emplace_back([&, w] {
        try {
          work(parts[w]);
        } catch (...) {
          failures[w] = std::current_exception();
          next_ = sets_.size();
        }
      });
    }
    for (std::thread& thread : pool) {
      thread.join();
    }
    for (size_t w = 0; w < parts.size(); ++w) {
      if (failures[w]) {
        std::rethrow_exception(failures[w]);
      }
      totals.tally.merge(parts[w].tally);
      totals.train.merge(parts[w].train);
      totals.eval.merge(parts[w].eval);
    }
  }

 private:
  void work(Totals& totals) {
    for (int64_t begin = next_.fetch_add(kBlock); begin < sets_.size();
         begin = next_.fetch_add(kBlock)) {
      const int64_t end = std::min(begin + kBlock, sets_.size());
      for (int64_t number = begin; number < end; ++number) {
        const bool train = number < sets_.train_size();
        const auto record = (train ? train_ : *eval_)
                                .check(sets_.index(number),
                                       number,
                                       number % stride_ == 0,
                                       totals.tally,
                                       train ? totals.train : totals.eval);
        if (record && duplicates_ != nullptr) {
          duplicates_->add(number, *record);
        }
      }
    }
  }

  Sets sets_;
  Duplicates* duplicates_;
  RecordCheck train_;
  std::optional<RecordCheck> eval_;
  int64_t stride_ = 1;
  std::atomic<int64_t> next_ = 0;
};

void check_labels(const RecordSums& sums, const char* name, Tally& tally) {
  if (sums.good + sums.bad > 1 && (sums.good == 0 || sums.bad == 0)) {
    tally.add(Rule::OneLabel, -1, fmt::format("{}: {} true, {} false", name, sums.good, sums.bad));
  }
}

/// Rules about a set as a whole.
void check_set(const Dataset::Impl& data, const RecordSums& sums, const char* name, Tally& tally) {
  check_labels(sums, name, tally);
  if (sums.prepared == 0) {
    return;
  }
  const bool ends_known = data.bundle.eos.has_value() || !data.bundle.stop_ids.empty();
  if (sums.with_targets > 0 && sums.with_end == 0) {
    tally.add(Rule::EndNeverTrained,
              -1,
              fmt::format("{}{}", name, ends_known ? "" : " (the tokenizer names no end token)"));
  } else if (sums.with_end * 2 < sums.with_targets) {
    tally.add(Rule::EndRarelyTrained,
              -1,
              fmt::format("{}: {} of {} examples", name, sums.with_end, sums.with_targets));
  }
  if (sums.targets * 100 < sums.tokens && sums.targets > 0) {
    tally.add(
        Rule::FewTargets, -1, fmt::format("{}: {} of {} tokens", name, sums.targets, sums.tokens));
  }
}

/// What small conversations show of the template, where there are conversations. A template that
/// cannot render even those fails at every record, with its place.
void check_template(const Dataset::Impl& data, Tally& tally) {
  bool chats = false;
  for (size_t part = 0; part < data.sources.parts().size(); ++part) {
    chats = chats || is_chat(data.sources, part);
  }
  if (!chats || !data.bundle.chat_template) {
    return;
  }
  try {
    const text::RenderOptions options = {.now = data.config.template_time};
    for (const std::string& problem : text::lint_template(data.bundle, options).problems) {
      tally.add(Rule::TemplateForm, -1, problem);
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::Data) {
      throw;
    }
  }
}

/// Rules that this configuration makes errors.
std::vector<Rule> errors_of(const Dataset::Impl& data, const Totals& totals) {
  std::vector<Rule> raise;
  const DataConfig& config = data.config;
  if (config.on_no_target == "error" || totals.train.with_targets == 0) {
    raise.push_back(Rule::NoTarget);
  }
  const bool ends_known = data.bundle.eos.has_value() || !data.bundle.stop_ids.empty();
  if (config.require_end_token && ends_known && !is_all_raw_text(data)) {
    raise.push_back(Rule::EndNeverTrained);
  }
  return raise;
}

VerifyReport report_of(const Sets& sets, const Totals& totals, std::vector<Rule> raise) {
  VerifyReport report;
  report.train_records = totals.train.records;
  report.eval_records = totals.eval.records;
  report.tokens = totals.train.tokens;
  report.targets = totals.train.targets;
  const auto of = [&](Rule rule) -> int64_t {
    switch (rule) {
      case Rule::LeakExact:
      case Rule::LeakNear:
        return sets.size() - sets.train_size();
      case Rule::DuplicateExact:
      case Rule::DuplicateNear:
        return sets.train_size();
      case Rule::TemplateForm:
        return totals.tally.count(rule);
      case Rule::FewTargets:
      case Rule::OneLabel:
      case Rule::EndNeverTrained:
      case Rule::EndRarelyTrained:
        return sets.eval != nullptr ? 2 : 1;
      default:
        return totals.train.records + totals.eval.records;
    }
  };
  report.findings =
      totals.tally.findings([&](int64_t number) { return sets.place(number); }, of, raise);
  return report;
}

}  // namespace

VerifyReport verify(const DataConfig& config,
                    const text::TokenizerBundle& bundle,
                    int64_t max_positions,
                    const VerifyOptions& options) {
  Totals totals;
  const Dataset train = open_leniently(false, config, bundle, max_positions, totals.tally);
  std::optional<Dataset> eval;
  if (has_eval(config)) {
    eval.emplace(open_leniently(true, config, bundle, max_positions, totals.tally));
  }
  const Sets sets{&train, eval ? &*eval : nullptr};
  std::optional<Duplicates> duplicates;
  if (options.duplicates) {
    duplicates.emplace(sets.numbered(), config, options);
  }
  Pass(sets, duplicates ? &*duplicates : nullptr).run(options.threads, totals);
  if (duplicates) {
    duplicates->report(totals.tally);
  }
  check_template(train.impl(), totals.tally);
  check_set(train.impl(), totals.train, "training", totals.tally);
  if (eval) {
    check_set(eval->impl(), totals.eval, "held-out", totals.tally);
  }
  std::vector<Rule> raise = errors_of(train.impl(), totals);
  if (config.on_bad_record == "error") {
    raise.push_back(Rule::BadRecord);
  }
  VerifyReport report = report_of(sets, totals, std::move(raise));
  report.header = train.summary().text() + (eval ? "\nheld out: " + eval->summary().text() : "");
  return report;
}

VerifyReport verify_quick(const Dataset& train, const Dataset* eval) {
  Totals totals;
  const Sets sets{&train, eval};
  for (const Dataset* set : {&train, eval}) {
    if (set == nullptr) {
      continue;
    }
    const RecordCheck check(set->impl());
    const int64_t size = set->impl().sources.size();
    const int64_t count = std::min(kQuickSample, size);
    const bool first = set == &train;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = size * i / count;
      check.check(index,
                  first ? index : sets.train_size() + index,
                  i % 8 == 0,
                  totals.tally,
                  first ? totals.train : totals.eval);
    }
  }
  check_labels(totals.train, "training", totals.tally);
  const auto bytes = [](const Dataset& set) { return set.summary().bytes; };
  if (eval != nullptr && bytes(train) + bytes(*eval) <= kQuickLeakBytes) {
    report_exact_leaks(sets.numbered(), totals.tally);
  }
  std::vector<Rule> raise = errors_of(train.impl(), totals);
  std::erase(raise, Rule::NoTarget);  // data.on_no_target acts where it happens
  if (train.impl().config.on_bad_record == "error") {
    raise.push_back(Rule::BadRecord);
  }
  return report_of(sets, totals, std::move(raise));
}

}  // namespace kamerton::data
