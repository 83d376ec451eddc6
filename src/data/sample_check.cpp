// SPDX-License-Identifier: Apache-2.0
// The lints that every run does before it starts.
#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"

namespace kamerton::data {
namespace {

using core::Error;
using core::ErrorKind;

constexpr char kSampleCheckWhere[] = "data.check";
constexpr int64_t kSampleCheckSample = 64;

struct Found {
  int64_t examples = 0;
  int64_t usable = 0;
  int64_t truncated = 0;
  int64_t boundary_moved = 0;
  int64_t with_end = 0;  ///< examples in which an end token is trained
};

bool trains_end(const Example& example, const text::TokenizerBundle& bundle) {
  return std::any_of(example.targets.begin(), example.targets.end(), [&](int32_t target) {
    return target != kNoTarget &&
           (target == bundle.eos.value_or(kNoTarget) ||
            std::count(bundle.stop_ids.begin(), bundle.stop_ids.end(), target) > 0);
  });
}

Found look(const Dataset::Impl& data) {
  Found found;
  found.examples = std::min(kSampleCheckSample, data.size());
  for (int64_t i = 0; i < found.examples; ++i) {
    // size * i stays far below 2^63 / 64.
    const Prepared prepared = data.prepare(data.size() * i / found.examples);
    found.usable += prepared.example.tokens.empty() ? 0 : 1;
    found.truncated += prepared.truncated ? 1 : 0;
    found.boundary_moved += prepared.boundary_moved ? 1 : 0;
    found.with_end += trains_end(prepared.example, data.bundle) ? 1 : 0;
  }
  return found;
}

void check_end(const Dataset::Impl& data, const Found& found, std::vector<std::string>& notes) {
  if (found.with_end > 0 || data.has_own_tokens()) {
    return;
  }
  const bool known = data.bundle.eos.has_value() || !data.bundle.stop_ids.empty();
  const bool raw_text = std::all_of(data.sources.parts().begin(),
                                    data.sources.parts().end(),
                                    [](const auto& part) { return part.layout == Layout::Text; });
  if (known && !raw_text && data.config.require_end_token) {
    const bool cut = found.truncated == found.examples;
    throw Error(ErrorKind::Data,
                {.where = kSampleCheckWhere,
                 .what = fmt::format("in none of {} examples is an end token trained: the model "
                                     "would not learn to stop",
                                     found.examples),
                 .got = cut ? "every one of them is cut at sequence_length" : "",
                 .allowed = fmt::format("'{}' among the trained tokens", data.bundle.eos_text),
                 .hint = cut ? "a larger data.sequence_length"
                             : "a chat template that ends turns with the model's end token, or "
                               "data.require_end_token: false"});
  }
  notes.push_back(known ? "no end token is trained in the sample: the model will not learn to stop"
                        : "the tokenizer names no end token: the model will not learn to stop");
}

}  // namespace

void check_sample(const Dataset::Impl& data, std::vector<std::string>& notes) {
  const Found found = look(data);
  if (found.usable == 0) {
    throw Error(ErrorKind::Data,
                {.where = kSampleCheckWhere,
                 .what = fmt::format("none of {} examples looked at can be used", found.examples),
                 .hint = "data.too_long, data.on_no_target, data.on_bad_record: each now leaves "
                         "out what it meets"});
  }
  check_end(data, found, notes);
  if (found.truncated > 0) {
    notes.push_back(fmt::format("{} of {} examples looked at are cut to {} tokens",
                                found.truncated,
                                found.examples,
                                data.sequence_length));
  }
  if (found.boundary_moved > 0) {
    notes.push_back(
        fmt::format("in {} of {} examples looked at, tokens merge across the end of "
                    "the prompt: the trained part starts where they differ",
                    found.boundary_moved,
                    found.examples));
  }
}

}  // namespace kamerton::data
