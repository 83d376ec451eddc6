// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/stream.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

#include "lanes.h"
#include "layout.h"
#include "prefetcher.h"
#include "stream_parts.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr char kStreamWhere[] = "data.stream";
constexpr int64_t kStateVersion = 1;

/// One step of this rank, and where its lanes stand after it.
struct Step {
  std::vector<Batch> batches;
  std::vector<int64_t> cursors;
  double epochs = 0;
};

[[noreturn]] void unfit(const SourceSummary& source,
                        const std::string& what,
                        const std::string& allowed,
                        const std::string& hint) {
  throw Error(ErrorKind::Config,
              {.where = kStreamWhere,
               .what = source.name + ": " + what,
               .got = "layout " + source.layout,
               .allowed = allowed,
               .hint = hint});
}

/// A loss on the tokens of one answer would ignore the other, one that compares needs both, and one
/// that judges needs to know.
void require_answers(const Dataset& set) {
  for (const SourceSummary& source : set.summary().sources) {
    const Layout layout = layout_from(source.layout);
    if (set.answers() == Answers::Pair && layout != Layout::Preference) {
      unfit(source,
            "the objective compares answers, and the records have one",
            "prompt, chosen and rejected",
            "objective.method: sft, or data.columns for columns of other names");
    }
    if (set.answers() == Answers::Judged && layout != Layout::UnpairedPreference) {
      unfit(source,
            "the objective learns from judged answers, and the records say nothing of theirs",
            "prompt, completion and label (true or false)",
            "objective.method: dpo for pairs, sft for answers without a label, or data.columns");
    }
    if (set.answers() == Answers::One && is_preference(layout)) {
      unfit(source,
            "the records compare or judge answers, which the loss of this method does not use",
            "records with one answer",
            std::string(layout == Layout::Preference ? "objective.method: dpo"
                                                     : "objective.method: kto") +
                "; to imitate the better answers: data.layout: prompt_completion with "
                "data.columns: {completion: chosen}");
    }
    if ((set.answers() == Answers::Steps) != (layout == Layout::Stepwise) &&
        set.answers() != Answers::Asked) {
      unfit(source,
            "answers judged by steps are for the method that learns from them, and it for nothing "
            "else",
            "prompt, completions and labels with objective.method: process_reward",
            "objective.method, or data.columns");
    }
    if (set.answers() == Answers::One && layout == Layout::Prompt) {
      unfit(source,
            "the records have prompts but no answers",
            "records with an answer",
            "objective.method: grpo or ppo, which generate answers");
    }
    if (set.answers() == Answers::Asked && layout == Layout::Text) {
      unfit(source,
            "the objective answers prompts, and raw text asks nothing",
            "prompt, prompt and completion, messages",
            "data.columns: {prompt: text}");
    }
  }
}

[[noreturn]] void bad_state(const std::string& what,
                            const std::string& got,
                            const std::string& allowed) {
  throw Error(ErrorKind::Data,
              {.where = kStreamWhere,
               .what = "the saved place in the data does not fit: " + what,
               .got = got,
               .allowed = allowed,
               .hint = "resume with the data and settings of the run that saved it"});
}

/// first_lane and cursors of a state.
std::pair<int64_t, std::vector<int64_t>> lanes_of(const Json& state) {
  const Json* next = core::json_find(state, "next");
  if (next == nullptr || !next->is_array()) {
    bad_state("it has no list 'next'", "", "");
  }
  std::vector<int64_t> cursors;
  for (const Json& value : *next) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0) {
      bad_state("an entry of 'next' is no stream index", "", "an integer, 0 or more");
    }
    cursors.push_back(value.get<int64_t>());
  }
  return {core::json_int(state, "first_lane", "data state"), std::move(cursors)};
}

}  // namespace

struct TrainStream::Impl {
  Impl(const DataConfig& config_in,
       uint64_t seed_in,
       const text::TokenizerBundle& bundle,
       int rank,
       int world_size,
       int64_t max_positions)
      : config((validate(config_in, world_size, max_positions), config_in)),
        seed(seed_in),
        dataset(open_train(config, bundle, max_positions)),
        digest(dataset.digest()),
        lane_count(config.batch_rows / world_size),
        first_lane(lane_count * rank),
        order((require_answers(dataset), dataset.mixture()), seed, config.shuffle),
        rows(make_rows({})),
        cursors(rows->cursors()),
        steps([this] { return make_step(); }, static_cast<size_t>(config.prefetch)) {}

  std::unique_ptr<RowSource> make_rows(std::vector<int32_t> lengths);
  Step make_step();
  /// What must be the same for a state to be continued, except for the world size.
  Json settings() const;

  DataConfig config;
  uint64_t seed;
  Dataset dataset;
  std::string digest;
  int64_t lane_count;
  int64_t first_lane;
  SampleOrder order;
  std::unique_ptr<RowSource> rows;  // only the preparing thread, or nobody
  std::vector<int64_t> cursors;     // after the last next()
  double epochs = 0;                // the same
  Prefetcher<Step> steps;           // last: its thread ends before the rest goes
};

std::unique_ptr<RowSource> TrainStream::Impl::make_rows(std::vector<int32_t> lengths) {
  const RowShape shape{.rows = config.batch_rows,
                       .first_lane = first_lane,
                       .lane_count = lane_count,
                       .sequence_length = dataset.row_length()};
  const Fetch fetch = [this](int64_t index) { return dataset.get(index); };
  if (const std::optional<WindowStrategy> strategy = window_strategy(config)) {
    return std::make_unique<WindowRows>(*strategy, shape, order, fetch, std::move(lengths));
  }
  return std::make_unique<Lanes>(shape, config.packing, order, fetch);
}

Step TrainStream::Impl::make_step() {
  Step step;
  step.batches.resize(static_cast<size_t>(lane_count / config.micro_batch_rows));
  int64_t lane = 0;
  for (Batch& batch : step.batches) {
    for (int64_t row = 0; row < config.micro_batch_rows; ++row) {
      rows->fill_row(lane++, batch);
    }
  }
  step.cursors = rows->cursors();
  step.epochs = rows->epochs();
  return step;
}

Json TrainStream::Impl::settings() const {
  Json result = Json::object();
  result["version"] = kStateVersion;
  result["size"] = dataset.size();
  result["rows"] = config.batch_rows;
  result["seed"] = seed;
  result["shuffle"] = config.shuffle;
  result["packing"] = config.packing;
  if (window_strategy(config)) {
    result["strategy"] = config.packing ? config.packing_strategy : "group_by_length";
  }
  result["sequence_length"] = dataset.summary().sequence_length;
  result["digest"] = digest;
  return result;
}

TrainStream::TrainStream(const DataConfig& config,
                         uint64_t seed,
                         const text::TokenizerBundle& bundle,
                         int rank,
                         int world_size,
                         int64_t max_positions)
    : impl_(std::make_unique<Impl>(config, seed, bundle, rank, world_size, max_positions)) {}
TrainStream::~TrainStream() = default;
TrainStream::TrainStream(TrainStream&&) noexcept = default;
TrainStream& TrainStream::operator=(TrainStream&&) noexcept = default;

std::vector<Batch> TrainStream::next() {
  Step step = impl_->steps.next();
  impl_->cursors = std::move(step.cursors);
  impl_->epochs = step.epochs;
  return std::move(step.batches);
}

Json TrainStream::state() const {
  Json state = impl_->settings();
  state["first_lane"] = impl_->first_lane;
  state["next"] = impl_->cursors;
  return state;
}

void TrainStream::load_state(const Json& state) {
  const Json expected = impl_->settings();
  for (const auto& [key, value] : expected.items()) {
    const Json* found = core::json_find(state, key);
    if (found == nullptr || *found != value) {
      bad_state(
          "'" + key + "' differs", found == nullptr ? "nothing" : found->dump(), value.dump());
    }
  }
  const auto [first, next] = lanes_of(state);
  const auto count = static_cast<int64_t>(next.size());
  if (first > impl_->first_lane || first + count < impl_->first_lane + impl_->lane_count) {
    bad_state("it lacks lanes of this rank",
              fmt::format("lanes {} to {}", first, first + count - 1),
              fmt::format("lanes {} to {}; merge_states joins those of all ranks",
                          impl_->first_lane,
                          impl_->first_lane + impl_->lane_count - 1));
  }
  std::vector<int64_t> own(next.begin() + (impl_->first_lane - first),
                           next.begin() + (impl_->first_lane - first + impl_->lane_count));
  for (size_t i = 0; i < own.size(); ++i) {
    const int64_t lane = impl_->first_lane + static_cast<int64_t>(i);
    if (!impl_->rows->may_stand(lane, own[i])) {
      bad_state(fmt::format("lane {} cannot stand at {}", lane, own[i]), "", "");
    }
  }
  impl_->steps.stop();
  impl_->rows->seek(own);
  impl_->cursors = std::move(own);
  impl_->epochs = impl_->rows->epochs();
}

int64_t TrainStream::size() const {
  return impl_->dataset.size();
}

double TrainStream::epoch() const {
  return impl_->epochs;
}

int64_t TrainStream::steps_for_epochs(double epochs, std::span<const int32_t> lengths) const {
  return count_steps(impl_->config, impl_->order, epochs, lengths, impl_->dataset.row_length());
}

void TrainStream::use_lengths(std::vector<int32_t> lengths) {
  if (!window_strategy(impl_->config) || lengths.empty()) {
    return;
  }
  impl_->steps.stop();
  impl_->rows = impl_->make_rows(std::move(lengths));
  impl_->rows->seek(impl_->cursors);
}

const Summary& TrainStream::summary() const {
  return impl_->dataset.summary();
}
std::string TrainStream::digest() const {
  return impl_->digest;
}
const Dataset& TrainStream::dataset() const {
  return impl_->dataset;
}

Json merge_states(std::span<const Json> states) {
  std::vector<const Json*> sorted;
  for (const Json& state : states) {
    sorted.push_back(&state);
  }
  if (sorted.empty()) {
    bad_state("there is none", "", "");
  }
  std::sort(sorted.begin(), sorted.end(), [](const Json* a, const Json* b) {
    return lanes_of(*a).first < lanes_of(*b).first;
  });
  Json merged = *sorted.front();
  std::vector<int64_t> next;
  for (const Json* state : sorted) {
    auto [first, cursors] = lanes_of(*state);
    Json settings = *state;
    settings["first_lane"] = merged["first_lane"];
    settings["next"] = merged["next"];
    if (first != static_cast<int64_t>(next.size()) || settings != merged) {
      bad_state("the ranks' parts do not join",
                fmt::format("lane {}", first),
                fmt::format("lane {}", next.size()));
    }
    next.insert(next.end(), cursors.begin(), cursors.end());
  }
  if (static_cast<int64_t>(next.size()) != core::json_int(merged, "rows", "data state")) {
    bad_state("lanes are missing", std::to_string(next.size()), merged["rows"].dump());
  }
  merged["next"] = next;
  return merged;
}

EvalStream::EvalStream(const EvalSet& set, int64_t micro_batch_rows, int rank, int world_size)
    : set_(&set), micro_batch_rows_(micro_batch_rows), rank_(rank), world_size_(world_size) {
  require_answers(set);
}

int64_t EvalStream::batches() const {
  const int64_t together = world_size_ * micro_batch_rows_;
  return (set_->size() + together - 1) / together;
}

std::optional<Batch> EvalStream::next() {
  if (position_ >= batches()) {
    return std::nullopt;
  }
  Batch batch;
  for (int64_t row = 0; row < micro_batch_rows_; ++row) {
    const int64_t index = (position_ * micro_batch_rows_ + row) * world_size_ + rank_;
    if (index >= set_->size()) {
      break;
    }
    const Example example = set_->get(index);
    if (!example.tokens.empty()) {
      batch.append(example, index);
      ++batch.rows;
    }
  }
  if (batch.rows == 0) {
    Example filler;
    filler.tokens = {0, 0};
    filler.targets = {kNoTarget, kNoTarget};
    if (set_->answers() == Answers::Pair) {
      filler.rejected = std::make_shared<const Example>(filler);
    } else if (set_->answers() == Answers::Judged) {
      filler.mismatched = std::make_shared<const Example>(filler);
    }
    batch.append(filler, kFiller);
    batch.rows = 1;
  }
  ++position_;
  return batch;
}

}  // namespace kamerton::data
