// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/dataset.h"

#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/storage/digest.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"
#include "impl_access.h"
#include "token_store.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kWhere[] = "data.dataset";

const char* name_of(TrainOn train_on) {
  return train_on == TrainOn::All          ? "all"
         : train_on == TrainOn::Completion ? "completion"
                                           : "assistant";
}

/// Whether the first readable record is a conversation.
bool is_chat(const Sources& sources) {
  for (int64_t i = 0; i < sources.size(); ++i) {
    try {
      return sources.record(i).kind == Record::Kind::Chat;
    } catch (const Error&) {
      sources.tolerate_current_error(i);
    }
  }
  return false;
}

std::string mask_in_words(TrainOn train_on, Layout layout, bool marks) {
  switch (train_on) {
    case TrainOn::All:
      return "every token";
    case TrainOn::Completion:
      return "what follows the prompt";
    case TrainOn::Assistant:
      break;
  }
  const std::string how = marks ? "by the template's {% generation %} marks"
                                : "by comparing renderings of the template";
  return layout == Layout::PromptCompletion ? "assistant turns of the completion, " + how
                                            : "assistant turns, " + how;
}

}  // namespace

TrainOn resolve_train_on(const DataConfig& config, Layout layout, bool conversational) {
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
                {.where = kWhere,
                 .what = "data.train_on does not fit the data",
                 .got = fmt::format(
                     "{} for {} of plain text", config.train_on, kamerton::data::name_of(layout)),
                 .allowed = layout == Layout::Text ? "auto, all" : "auto, all, completion"});
  }
  if (layout == Layout::Text) {
    return TrainOn::All;
  }
  return layout == Layout::PromptCompletion || !conversational ? TrainOn::Completion
                                                               : TrainOn::Assistant;
}

Dataset::Impl::Impl(const std::vector<std::string>& paths,
                    const DataConfig& config_in,
                    const text::TokenizerBundle& bundle_in,
                    int64_t max_positions)
    : config(config_in),
      bundle(bundle_in),
      sequence_length(resolved_sequence_length(config_in, max_positions)),
      sources(paths, config_in, bundle_in.chat_template.has_value()),
      train_on(resolve_train_on(config_in, sources.layout(), is_chat(sources))),
      preparer(bundle_in, train_on, config_in.template_time) {
  if (config.text_windows) {
    open_windows();
  }
  fill_summary(paths);
  if (auto found = find_store(*this)) {
    summary.notes.push_back("tokens from " + found->folder().string());
    store = std::make_shared<const TokenStore>(std::move(*found));
  }
  if (config.verify != "off") {
    check_sample(*this, summary.notes);
  }
}

void Dataset::Impl::open_windows() {
  if (sources.layout() != Layout::Text) {
    throw Error(ErrorKind::Config,
                {.where = kWhere,
                 .what = "data.text_windows is for raw text",
                 .got = std::string(kamerton::data::name_of(sources.layout())),
                 .allowed = "text",
                 .hint = "data.packing: true fills rows with whole examples"});
  }
  TokenWindows::Options options;
  options.length = sequence_length;
  options.folder = config.index_dir;
  options.key = fmt::format("tokens 1|{}|{}|{}|{}|{}",
                            sources.fingerprint(),
                            config.format,
                            config.text_split,
                            config.max_line_bytes,
                            bundle.digest_text());
  windows = TokenWindows::build(sources, preparer, options);
  if (windows->size() == 0) {
    throw Error(ErrorKind::Data, {.where = kWhere, .what = "the text is shorter than two tokens"});
  }
}

void Dataset::Impl::fill_summary(const std::vector<std::string>& paths) {
  const bool marks = bundle.chat_template && bundle.chat_template->has_generation_marks();
  summary.files = paths;
  summary.layout = kamerton::data::name_of(sources.layout());
  summary.layout_detected = sources.layout_detected();
  summary.train_on = name_of(train_on);
  summary.mask = mask_in_words(train_on, sources.layout(), marks);
  summary.examples = size();
  summary.bytes = static_cast<int64_t>(sources.bytes());
  summary.sequence_length = sequence_length;
  if (sources.bad_records() > 0) {
    summary.notes.push_back(fmt::format("{} bad records are left out", sources.bad_records()));
  }
  if (sources.layout() == Layout::PromptCompletion && bundle.chat_template && !is_chat(sources)) {
    summary.notes.push_back(
        "prompt and completion are plain text: the model's chat template is not applied");
  }
}

/// Cuts what is too long; false: the example is left out.
bool Dataset::Impl::fit(Tokenized& tokenized, Prepared& result, const std::string& origin) const {
  const auto limit = static_cast<size_t>(sequence_length);
  if (tokenized.ids.size() <= limit) {
    return true;
  }
  if (config.too_long == "error") {
    throw Error(ErrorKind::Data,
                {.where = kWhere,
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

bool Dataset::Impl::has_target(const Prepared& result, const std::string& origin) const {
  if (result.example.target_count() > 0) {
    return true;
  }
  if (config.on_no_target == "error") {
    throw Error(
        ErrorKind::Data,
        {.where = kWhere,
         .what = origin + ": the example has no token to train" +
                 (result.truncated ? " after it was cut to data.sequence_length" : ""),
         .got = fmt::format("{} tokens", result.example.tokens.size()),
         .hint = "data.on_no_target: skip" +
                 std::string(result.truncated ? ", or a larger data.sequence_length" : "")});
  }
  ++skipped_no_target;
  return false;
}

Prepared Dataset::Impl::prepare(int64_t index) const {
  Prepared result;
  result.example.source_index = index;
  if (windows) {
    result.example = windows->get(index);
    result.whole_tokens = static_cast<int64_t>(result.example.tokens.size());
    ++examples;
    return result;
  }
  Tokenized tokenized;
  try {
    // A record that could not be prepared fails here as it did then.
    auto ready = store ? store->get(index) : std::nullopt;
    tokenized =
        ready ? std::move(*ready) : preparer_of(*this, index).prepare(sources.record(index));
  } catch (const Error&) {
    sources.tolerate_current_error(index);
    ++skipped_bad;
    return result;
  }
  ++examples;
  const std::string origin = sources.origin(index);
  result.boundary_moved = tokenized.boundary_moved;
  result.whole_tokens = static_cast<int64_t>(tokenized.ids.size());
  if (!fit(tokenized, result, origin)) {
    return result;
  }
  Example& example = result.example;
  example.tokens = std::move(tokenized.ids);
  example.targets.assign(example.tokens.size(), kNoTarget);
  for (size_t i = 1; i < example.tokens.size(); ++i) {
    if (tokenized.trained[i] != 0) {
      example.targets[i - 1] = example.tokens[i];
    }
  }
  if (!has_target(result, origin)) {
    example.tokens.clear();
    example.targets.clear();
  }
  return result;
}

std::string Dataset::Impl::digest() const {
  const std::string text = fmt::format("data 1|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
                                       sources.fingerprint(),
                                       summary.layout,
                                       summary.train_on,
                                       sequence_length,
                                       config.too_long,
                                       config.on_no_target,
                                       config.on_bad_record,
                                       config.text_windows ? config.text_split : "",
                                       config.template_time,
                                       bundle.digest_text());
  return storage::tagged(storage::digest_of(std::string_view(text)));
}

Dataset::Dataset(const std::vector<std::string>& paths,
                 const DataConfig& config,
                 const text::TokenizerBundle& bundle,
                 int64_t max_positions)
    : impl_(std::make_unique<Impl>(paths, config, bundle, max_positions)) {}
Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;

int64_t Dataset::size() const {
  return impl_->size();
}
Example Dataset::get(int64_t index) const {
  return impl_->prepare(index).example;
}
const Summary& Dataset::summary() const {
  return impl_->summary;
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
  return impl_->preparer.question(record(index));
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
    result.push_back(static_cast<int32_t>(get(i).tokens.size()));
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

std::string Summary::text() const {
  std::string result;
  for (size_t i = 0; i < files.size() && i < 4; ++i) {
    result += (i > 0 ? ", " : "") + files[i];
  }
  if (files.size() > 4) {
    result += fmt::format(", and {} more", files.size() - 4);
  }
  result += fmt::format("\n{} examples, {}, layout {}{}, rows of up to {} tokens\ntrained: {}",
                        examples,
                        core::format_bytes(static_cast<uint64_t>(bytes)),
                        layout,
                        layout_detected ? " (found)" : " (given)",
                        sequence_length,
                        mask);
  for (const std::string& note : notes) {
    result += "\nnote: " + note;
  }
  return result;
}

Dataset open_train(const DataConfig& config,
                   const text::TokenizerBundle& bundle,
                   int64_t max_positions) {
  return {config.train, config, bundle, max_positions};
}

EvalSet open_eval(const DataConfig& config,
                  const text::TokenizerBundle& bundle,
                  int64_t max_positions) {
  return {config.eval, config, bundle, max_positions};
}

}  // namespace kamerton::data
