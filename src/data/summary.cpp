// SPDX-License-Identifier: Apache-2.0
// What was found in the files, in words.
#include <algorithm>

#include <fmt/format.h>

#include "kamerton/core/format.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"

namespace kamerton::data {
namespace {

std::string mask_in_words(TrainOn train_on, Layout layout, bool marks) {
  if (layout == Layout::Preference) {
    return "both answers, what follows the prompt";
  }
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

/// Appends what is not among the parts yet.
void join(std::string& all, const std::string& one) {
  const std::string padded = ", " + all + ", ";
  if (all.empty()) {
    all = one;
  } else if (padded.find(", " + one + ", ") == std::string::npos) {
    all += ", " + one;
  }
}

SourceSummary summarize_part(const Dataset::Impl& data, size_t i) {
  const Sources::Part& part = data.sources.parts()[i];
  return {.name = part.config.name,
          .files = part.files,
          .layout = std::string(kamerton::data::name_of(part.layout)),
          .layout_detected = part.detected,
          .examples = part.size,
          .drawn = data.windows ? part.size : data.mixture.count(i)};
}

std::string list_files(const std::vector<std::string>& files) {
  std::string result;
  for (size_t i = 0; i < files.size() && i < 4; ++i) {
    result += (i > 0 ? ", " : "") + files[i];
  }
  return files.size() > 4 ? result + fmt::format(", and {} more", files.size() - 4) : result;
}

std::string describe(const SourceSummary& source, int64_t epoch) {
  return fmt::format("source {}: {} examples, layout {}{}, {:.1f} % of an epoch ({:.2f} passes)",
                     source.name,
                     source.examples,
                     source.layout,
                     source.layout_detected ? " (found)" : " (given)",
                     100.0 * static_cast<double>(source.drawn) / static_cast<double>(epoch),
                     static_cast<double>(source.drawn) / static_cast<double>(source.examples));
}

}  // namespace

Summary summarize(const Dataset::Impl& data) {
  const bool marks = data.bundle.chat_template && data.bundle.chat_template->has_generation_marks();
  Summary summary;
  bool raw_pairs = false;
  for (size_t i = 0; i < data.sources.parts().size(); ++i) {
    const Sources::Part& part = data.sources.parts()[i];
    const SourceSummary& source = summary.sources.emplace_back(summarize_part(data, i));
    summary.files.insert(summary.files.end(), part.files.begin(), part.files.end());
    const TrainOn train_on = data.preparers[i].train_on();
    join(summary.layout, source.layout);
    join(summary.train_on, kamerton::data::name_of(train_on));
    join(summary.mask, mask_in_words(train_on, part.layout, marks));
    summary.layout_detected = summary.layout_detected && part.detected;
    const bool pair = part.layout == Layout::PromptCompletion || is_preference(part.layout);
    raw_pairs = raw_pairs || (pair && !part.made_for && !is_chat(data.sources, i));
  }
  summary.examples = data.size();
  summary.bytes = static_cast<int64_t>(data.sources.bytes());
  summary.sequence_length = data.sequence_length;
  if (data.sources.bad_records() > 0) {
    summary.notes.push_back(fmt::format("{} bad records are left out", data.sources.bad_records()));
  }
  if (raw_pairs && data.bundle.chat_template) {
    summary.notes.push_back(
        "prompt and completion are plain text: the model's chat template is not applied");
  }
  return summary;
}

std::string Summary::text() const {
  std::string result = list_files(files);
  result += fmt::format("\n{} examples, {}, layout {}{}, rows of up to {} tokens\ntrained: {}",
                        examples,
                        core::format_bytes(static_cast<uint64_t>(bytes)),
                        layout,
                        layout_detected ? " (found)" : " (given)",
                        sequence_length,
                        mask);
  if (sources.size() > 1) {
    for (const SourceSummary& source : sources) {
      result += "\n" + describe(source, examples);
    }
  }
  for (const std::string& note : notes) {
    result += "\nnote: " + note;
  }
  return result;
}

}  // namespace kamerton::data
