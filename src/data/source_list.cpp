// SPDX-License-Identifier: Apache-2.0
// From the configuration to the list of sources.
#include <algorithm>

#include <fmt/format.h>

#include "kamerton/core/error.h"

#include "sources.h"

namespace kamerton::data {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& hint) {
  throw core::Error(core::ErrorKind::Config, {.where = "data.sources", .what = what, .hint = hint});
}

/// What a source leaves open is as for the whole.
SourceConfig filled_in(SourceConfig source, const DataConfig& config) {
  if (source.name.empty() && !source.files.empty()) {
    source.name = source.files.front();
  }
  source.format = source.format == "auto" ? config.format : source.format;
  source.layout = source.layout == "auto" ? config.layout : source.layout;
  source.columns = source.columns.given().empty() ? config.columns : source.columns;
  return source;
}

void check_weights(const std::vector<SourceConfig>& sources, const DataConfig& config) {
  const auto weighted = std::count_if(
      sources.begin(), sources.end(), [](const SourceConfig& s) { return s.weight.has_value(); });
  if (weighted != 0 && weighted != static_cast<std::ptrdiff_t>(sources.size())) {
    refuse("some sources have a weight and some have none", "data.sources.<i>.weight for all");
  }
  if (weighted != 0 && config.mixture_temperature != 1.0) {
    refuse(
        "weights already say how often each source is drawn: data.mixture_temperature has "
        "nothing to do",
        "either of the two");
  }
}

}  // namespace

std::vector<SourceConfig> sources_of_files(const std::vector<std::string>& files,
                                           const DataConfig& config) {
  SourceConfig source;
  source.files = files;
  return {filled_in(std::move(source), config)};
}

namespace {

/// data.sources, or one source of data.train.
std::vector<SourceConfig> own_sources(const DataConfig& config) {
  if (config.validation_fraction > 0 && !config.eval.empty()) {
    refuse("data.eval and data.validation_fraction exclude each other",
           "held-out files, or a share of the training data");
  }
  if (config.sources.empty()) {
    return sources_of_files(config.train, config);
  }
  if (!config.train.empty()) {
    refuse("data.train and data.sources exclude each other",
           "data.train's files as one more of data.sources");
  }
  std::vector<SourceConfig> sources;
  for (const SourceConfig& source : config.sources) {
    if (source.files.empty()) {
      refuse(fmt::format("source {} of data.sources has no files", sources.size()),
             fmt::format("data.sources.{}.files: [file.jsonl]", sources.size()));
    }
    sources.push_back(filled_in(source, config));
  }
  check_weights(sources, config);
  return sources;
}

}  // namespace

std::vector<SourceConfig> train_sources(const DataConfig& config, Side side) {
  std::vector<SourceConfig> sources = own_sources(config);
  if (config.replay.has_value() && side != Side::Validation) {
    for (const SourceConfig& source : sources) {
      if (source.name == kReplayName) {
        refuse("a source of data.sources has the name that keep.replay's data have",
               "another name");
      }
    }
    SourceConfig replay;
    replay.name = kReplayName;
    replay.files = config.replay->files;
    sources.push_back(std::move(replay));
  }
  return sources;
}

}  // namespace kamerton::data
