// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"
#include "replay.h"
#include "token_store.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kDatasetWhere[] = "data.dataset";

std::vector<Preparer> make_preparers(const Sources& sources,
                                     const DataConfig& config,
                                     const text::TokenizerBundle& bundle) {
  std::vector<Preparer> preparers;
  for (size_t part = 0; part < sources.parts().size(); ++part) {
    const Sources::Part& source = sources.parts()[part];
    const TrainOn train_on = source.made_for.has_value()
                                 ? *source.made_for
                                 : resolve_train_on(config, source.layout, is_chat(sources, part));
    preparers.emplace_back(bundle, train_on, config.template_time);
  }
  return preparers;
}

/// Examples of all parts but the last.
int64_t own_size(const std::vector<MixturePart>& parts) {
  int64_t size = -parts.back().size;
  for (const MixturePart& part : parts) {
    size += part.size;
  }
  return size;
}

/// The last part is drawn `ratio` of the time, the others as they would be without it.
void weigh_replay(std::vector<MixturePart>& parts, double ratio, double temperature) {
  double sum = 0.0;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    parts[i].weight =
        parts[i].weight.value_or(std::pow(static_cast<double>(parts[i].size), 1.0 / temperature));
    sum += *parts[i].weight;
  }
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    *parts[i].weight *= (1.0 - ratio) / sum;
  }
  parts.back().weight = ratio;
}

Mixture make_mixture(const Sources& sources, const DataConfig& config) {
  std::vector<MixturePart> parts;
  for (const Sources::Part& part : sources.parts()) {
    parts.push_back({.size = part.size, .weight = part.config.weight});
  }
  const bool replays =
      config.replay.has_value() && sources.parts().back().config.name == kReplayName;
  if (!replays) {
    return {parts, config.mixture_temperature};
  }
  const double temperature = config.mixture_temperature;
  const bool weighted = parts.front().weight.has_value();
  weigh_replay(parts, config.replay->ratio, temperature);
  const bool enough = parts.back().size == replay_count(own_size(parts), config.replay->ratio);
  if (enough && !weighted && temperature == 1.0) {  // each record once a pass
    for (MixturePart& part : parts) {
      part.weight.reset();
    }
  }
  return {parts, 1.0};
}

}  // namespace

bool is_chat(const Sources& sources, size_t part) {
  const Sources::Part& source = sources.parts()[part];
  for (int64_t i = source.first; i < source.first + source.size; ++i) {
    try {
      return sources.record(i).kind == Record::Kind::Chat;
    } catch (const Error&) {
      sources.tolerate_current_error(i);
    }
  }
  return false;
}

TrainOn resolve_train_on(const DataConfig& config, Layout layout, bool conversational) {
  if (is_preference(layout) && config.train_on != "auto" && config.train_on != "completion") {
    throw Error(ErrorKind::Config,
                {.where = kDatasetWhere,
                 .what = "data.train_on does not fit the data",
                 .got = fmt::format("{} for {}", config.train_on, kamerton::data::name_of(layout)),
                 .allowed = "auto, completion"});
  }
  if (config.train_on == "all") {
    return TrainOn::All;
  }
  if (config.train_on == "completion" && layout != Layout::Text) {
    return TrainOn::Completion;
  }
  if (config.train_on == "assistant" && conversational) {
    return TrainOn::Assistant;
  }
  if (config.train_on != "auto") {
    throw Error(ErrorKind::Config,
                {.where = kDatasetWhere,
                 .what = "data.train_on does not fit the data",
                 .got = fmt::format(
                     "{} for {} of plain text", config.train_on, kamerton::data::name_of(layout)),
                 .allowed = layout == Layout::Text ? "auto, all" : "auto, all, completion"});
  }
  if (layout == Layout::Text) {
    return TrainOn::All;
  }
  const bool pair =
      layout == Layout::PromptCompletion || layout == Layout::Prompt || is_preference(layout);
  return pair || !conversational ? TrainOn::Completion : TrainOn::Assistant;
}

Dataset::Impl::Impl(const std::vector<SourceConfig>& source_list,
                    const DataConfig& config_in,
                    Side side_in,
                    const text::TokenizerBundle& bundle_in,
                    int64_t max_positions)
    : config(config_in),
      side(side_in),
      bundle(bundle_in),
      sequence_length(resolved_sequence_length(config_in, max_positions)),
      sources(source_list, config_in, side_in, &bundle_in),
      preparers(make_preparers(sources, config_in, bundle_in)),
      mixture(make_mixture(sources, config_in)) {
  if (auto found = has_own_tokens() ? std::nullopt : find_store(*this)) {
    store = std::make_shared<const TokenStore>(std::move(*found));
  }
  if (config.text_windows) {
    open_windows();
  }
  summary = summarize(*this);
  if (store) {
    summary.notes.push_back("tokens from " + store->folder().string());
  }
  if (config.verify != "off") {
    check_sample(*this, summary.notes);
  }
}

void Dataset::Impl::open_windows() {
  const Sources::Part& only = sources.parts().front();
  if (only.layout != Layout::Text || sources.parts().size() > 1) {
    throw Error(ErrorKind::Config,
                {.where = kDatasetWhere,
                 .what = "data.text_windows is for raw text of one source",
                 .got = fmt::format("{}{}",
                                    kamerton::data::name_of(only.layout),
                                    sources.parts().size() > 1 ? " and other sources" : ""),
                 .allowed = "text",
                 .hint = "data.packing: true fills rows with whole examples"});
  }
  if (!config.cut_windows) {
    return;
  }
  TokenWindows::Options options;
  options.length = sequence_length;
  options.folder = config.index_dir;
  options.key = fmt::format("tokens 2|{}|{}|{}|{}|{}|{}",
                            static_cast<int>(side),
                            sources.fingerprint(),
                            config.format,
                            config.text_split,
                            config.max_line_bytes,
                            bundle.digest_text());
  const auto piece = [this](int64_t i) { return tokenize(i).pair.chosen; };
  windows = TokenWindows::build(sources, piece, options);
  if (windows->size() == 0) {
    throw Error(ErrorKind::Data,
                {.where = kDatasetWhere, .what = "the text is shorter than two tokens"});
  }
  mixture = Mixture(windows->size());
}

/// Cuts what is too long; false: the example is left out.
bool Dataset::Impl::fit(Tokenized& tokenized, Prepared& result, const std::string& origin) const {
  const auto limit = static_cast<size_t>(sequence_length);
  if (tokenized.ids.size() <= limit || packing_splits(config)) {
    return true;
  }
  if (config.too_long == "error") {
    throw Error(ErrorKind::Data,
                {.where = kDatasetWhere,
                 .what = origin + ": the example is too long",
                 .got = fmt::format("{} tokens", tokenized.ids.size()),
                 .allowed = fmt::format("data.sequence_length = {}", sequence_length),
                 .hint = "a larger data.sequence_length, or data.too_long: truncate or skip"});
  }
  if (config.too_long == "skip") {
    ++skipped_too_long;
    return false;
  }
  ++truncated;
  result.truncated = true;
  const auto excess = static_cast<std::ptrdiff_t>(tokenized.ids.size() - limit);
  if (config.too_long == "truncate_start") {
    tokenized.ids.erase(tokenized.ids.begin(), tokenized.ids.begin() + excess);
    tokenized.trained.erase(tokenized.trained.begin(), tokenized.trained.begin() + excess);
  }
  tokenized.ids.resize(limit);
  tokenized.trained.resize(limit);
  return true;
}

bool Dataset::Impl::has_target(const Prepared& result,
                               const Example& example,
                               const std::string& origin) const {
  if (example.target_count() > 0) {
    return true;
  }
  if (config.on_no_target == "error") {
    throw Error(
        ErrorKind::Data,
        {.where = kDatasetWhere,
         .what = origin + ": the example has no token to train" +
                 (result.truncated ? " after it was cut to data.sequence_length" : ""),
         .got = fmt::format("{} tokens", example.tokens.size()),
         .hint = "data.on_no_target: skip" +
                 std::string(result.truncated ? ", or a larger data.sequence_length" : "")});
  }
  ++skipped_no_target;
  return false;
}

std::optional<Example> Dataset::Impl::finish(Tokenized tokenized,
                                             Prepared& result,
                                             const std::string& origin) const {
  result.boundary_moved = result.boundary_moved || tokenized.boundary_moved;
  if (!fit(tokenized, result, origin)) {
    return std::nullopt;
  }
  Example example;
  example.source_index = result.example.source_index;
  example.tokens = std::move(tokenized.ids);
  example.targets.assign(example.tokens.size(), kNoTarget);
  for (size_t i = 1; i < example.tokens.size(); ++i) {
    if (tokenized.trained[i] != 0) {
      example.targets[i - 1] = example.tokens[i];
    }
  }
  if (!has_target(result, example, origin)) {
    return std::nullopt;
  }
  return example;
}

void Dataset::Impl::finish_pair(TokenizedPair pair,
                                Prepared& result,
                                const std::string& origin) const {
  std::optional<Example> rejected = finish(std::move(pair.rejected), result, origin);
  std::optional<Example> chosen = finish(std::move(pair.chosen), result, origin);
  if (chosen && rejected) {
    result.example = std::move(*chosen);
    result.example.rejected = std::make_shared<const Example>(std::move(*rejected));
  }
}

Prepared Dataset::Impl::prepare(int64_t index) const {
  if (config.answers == Answers::Asked || config.answers == Answers::Steps) {
    return config.answers == Answers::Asked ? prepare_prompt(index) : prepare_steps(index);
  }
  Prepared result;
  result.example.source_index = index;
  if (windows) {
    result.example = windows->get(index);
    result.whole_tokens = static_cast<int64_t>(result.example.tokens.size());
    ++examples;
    return result;
  }
  TokenizedRecord tokenized;
  try {
    tokenized = tokenize(index);
  } catch (const Error&) {
    sources.tolerate_current_error(index);
    ++skipped_bad;
    return result;
  }
  ++examples;
  const std::string origin = sources.origin(index);
  result.whole_tokens = static_cast<int64_t>(tokenized.pair.chosen.ids.size());
  if (tokenized.preference) {
    finish_pair(std::move(tokenized.pair), result, origin);
  } else if (auto example = finish(std::move(tokenized.pair.chosen), result, origin)) {
    result.example = std::move(*example);
  }
  result.example.label = tokenized.label;
  if (config.margins && !result.example.tokens.empty()) {
    result.example.margin = sources.record(index).margin.value_or(0.0);
  }
  return result;
}

TokenizedRecord Dataset::Impl::tokenize(int64_t index) const {
  if (store) {
    // A record that could not be prepared fails below as it did then.
    if (auto ready = store->get(index)) {
      return std::move(*ready);
    }
  }
  if (auto ready = sources.tokenized(index)) {
    if (config.text_windows && !sources.follows(index) && !ready->pair.chosen.trained.empty()) {
      ready->pair.chosen.trained.front() = 0;  // what it continues is left out
    }
    return std::move(*ready);
  }
  TokenizedRecord result;
  if (config.text_windows) {
    result.pair.chosen = tokenize_piece(index);
    return result;
  }
  const Preparer& preparer = preparers[sources.part_of(index)];
  const Record record = sources.record(index);
  result.label = record.label;
  result.preference = record.rejected != nullptr;
  if (result.preference) {
    result.pair = preparer.prepare_preference(record);
  } else {
    result.pair.chosen = preparer.prepare(record);
  }
  return result;
}

Tokenized Dataset::Impl::tokenize_piece(int64_t index) const {
  const bool first = !sources.continues(index);
  const bool last = index + 1 == sources.size() || !sources.continues(index + 1);
  Tokenized result;
  result.ids = preparers.front().encode_document(sources.record(index).completion, first, last);
  result.trained.assign(result.ids.size(), 1);
  if (first && !result.trained.empty()) {
    result.trained.front() = 0;
  }
  return result;
}

std::string Dataset::Impl::digest() const {
  const std::string text = fmt::format("data 2|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
                                       sources.fingerprint(),
                                       summary.layout,
                                       summary.train_on,
                                       sequence_length,
                                       packing_splits(config) ? "split" : config.too_long,
                                       config.on_no_target,
                                       config.on_bad_record,
                                       config.text_windows ? config.text_split : "",
                                       config.template_time,
                                       config.mixture_temperature,
                                       bundle.digest_text());
  return storage::tagged(storage::digest_of(std::string_view(text)));
}

Dataset::Dataset(const std::vector<std::string>& paths,
                 const DataConfig& config,
                 const text::TokenizerBundle& bundle,
                 int64_t max_positions)
    : impl_(std::make_unique<Impl>(
          sources_of_files(paths, config), config, Side::All, bundle, max_positions)) {}
Dataset::Dataset(const DataConfig& config,
                 Side side,
                 const text::TokenizerBundle& bundle,
                 int64_t max_positions)
    : impl_(std::make_unique<Impl>(
          train_sources(config, side), config, side, bundle, max_positions)) {}
Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;

int64_t Dataset::size() const {
  return impl_->size();
}
Example Dataset::get(int64_t index) const {
  Example example = impl_->prepare(index).example;
  if (impl_->config.answers == Answers::Judged && !example.tokens.empty()) {
    example.mismatched = std::make_shared<const Example>(impl_->mismatch(example));
  }
  return example;
}
Answers Dataset::answers() const {
  return impl_->config.answers;
}

int64_t Dataset::row_length() const {
  const bool two = answers() == Answers::Pair || answers() == Answers::Judged;
  return impl_->sequence_length * (two ? 2 : 1);
}

const Summary& Dataset::summary() const {
  return impl_->summary;
}
size_t Dataset::source_of(int64_t index) const {
  return impl_->windows ? 0 : impl_->sources.part_of(index);
}
const Mixture& Dataset::mixture() const {
  return impl_->mixture;
}
std::string Dataset::digest() const {
  return impl_->digest();
}
const text::TokenizerBundle& Dataset::bundle() const {
  return impl_->bundle;
}

Record Dataset::record(int64_t index) const {
  if (!impl_->windows) {
    return impl_->sources.record(index);
  }
  Record record;
  record.completion = raw(index);
  record.origin = origin(index);
  return record;
}

Question Dataset::question(int64_t index) const {
  return impl_->preparers[source_of(index)].question(record(index));
}

std::string Dataset::raw(int64_t index) const {
  return impl_->windows ? impl_->bundle.tokenizer.decode(impl_->windows->get(index).tokens, false)
                        : impl_->sources.raw(index);
}

std::string Dataset::origin(int64_t index) const {
  return impl_->windows ? fmt::format("window {}", index) : impl_->sources.origin(index);
}

std::vector<int32_t> Dataset::lengths(int64_t begin, int64_t end) const {
  std::vector<int32_t> result;
  result.reserve(static_cast<size_t>(end - begin));
  for (int64_t i = begin; i < end; ++i) {
    result.push_back(static_cast<int32_t>(get(i).length()));
  }
  return result;
}

Counters Dataset::counters() const {
  return {.examples = impl_->examples,
          .truncated = impl_->truncated,
          .skipped_too_long = impl_->skipped_too_long,
          .skipped_no_target = impl_->skipped_no_target,
          .skipped_bad = impl_->skipped_bad};
}

Dataset open_train(const DataConfig& config,
                   const text::TokenizerBundle& bundle,
                   int64_t max_positions) {
  return {config, Side::Train, bundle, max_positions};
}

EvalSet open_eval(const DataConfig& config,
                  const text::TokenizerBundle& bundle,
                  int64_t max_positions) {
  DataConfig unpacked = config;  // rows of evaluation are examples
  unpacked.packing = false;
  if (config.eval.empty() && config.validation_fraction > 0) {
    unpacked.mixture_temperature = 1.0;
    return {unpacked, Side::Validation, bundle, max_positions};
  }
  return {config.eval, unpacked, bundle, max_positions};
}

}  // namespace kamerton::data
