// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/inspect.h"

#include <algorithm>
#include <exception>
#include <numeric>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/format.h"
#include "kamerton/text/bundle.h"

#include "dataset_impl.h"
#include "packing.h"
#include "window_rows.h"

namespace kamerton::data {
namespace {

constexpr const char* kTrainedColor = "\x1b[32m";
constexpr const char* kPlainColor = "\x1b[2m";
constexpr const char* kReset = "\x1b[0m";
constexpr int64_t kBarWidth = 40;

/// Line ends shown and kept; other control characters as \xNN, so that data cannot steer the
/// terminal.
std::string visible(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    const bool c1 = byte == 0xC2 && i + 1 < text.size() &&
                    static_cast<uint8_t>(text[i + 1]) >= 0x80 &&
                    static_cast<uint8_t>(text[i + 1]) < 0xA0;
    if (byte == '\n') {
      result += "\u21B5\n";
    } else if (byte == '\t') {
      result += "\u2192\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      result += fmt::format("\\x{:02x}", byte);
    } else if (c1) {
      result += fmt::format("\\u{:04x}", static_cast<uint8_t>(text[++i]));
    } else {
      result += text[i];
    }
  }
  return result;
}

/// Opens and closes stretches of trained and other tokens.
class Marker {
 public:
  Marker(std::string& out, bool color) : out_(out), color_(color) {}
  void state(bool trained) {
    if (open_ && trained == trained_) {
      return;
    }
    close();
    out_ += color_ ? (trained ? kTrainedColor : kPlainColor) : (trained ? "[[" : "");
    trained_ = trained;
    open_ = true;
  }
  void close() {
    if (open_) {
      out_ += color_ ? kReset : (trained_ ? "]]" : "");
    }
    open_ = false;
  }

 private:
  std::string& out_;
  bool color_;
  bool open_ = false;
  bool trained_ = false;
};

int32_t quantile(const std::vector<int32_t>& sorted, double share) {
  const auto last = static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<size_t>(share * last + 0.5)];
}

/// Lengths of the examples that are used, in order, and counts; one range of examples.
struct Part {
  std::vector<int32_t> lengths;
  std::vector<int32_t> whole;  ///< before they were cut
  std::vector<SourceStats> sources;
  int64_t skipped = 0, targets = 0, characters = 0, truncated = 0;
};

/// The counts of the file that "file:line" names; examples of a file lie together.
SourceStats& source_named(std::vector<SourceStats>& sources, const std::string& origin) {
  const std::string_view name = std::string_view(origin).substr(0, origin.rfind(':'));
  if (sources.empty() || sources.back().name != name) {
    sources.push_back({.name = std::string(name)});
  }
  return sources.back();
}

Part measure_range(const Dataset& set, int64_t begin, int64_t end) {
  Part part;
  for (int64_t i = begin; i < end; ++i) {
    const Prepared prepared = set.impl().prepare(i);
    const Example& example = prepared.example;
    if (example.tokens.empty()) {
      ++part.skipped;
      continue;
    }
    const auto length = static_cast<int32_t>(example.tokens.size());
    const int64_t targets = example.target_count();
    part.lengths.push_back(length);
    part.whole.push_back(static_cast<int32_t>(prepared.whole_tokens));
    part.targets += targets;
    part.truncated += prepared.truncated ? 1 : 0;
    part.characters +=
        static_cast<int64_t>(set.bundle().tokenizer.decode(example.tokens, true).size());
    SourceStats& source = source_named(part.sources, set.origin(i));
    ++source.examples;
    source.tokens += length;
    source.targets += targets;
    source.truncated += prepared.truncated ? 1 : 0;
  }
  return part;
}

void add_sources(const std::vector<SourceStats>& from, std::vector<SourceStats>& to) {
  for (const SourceStats& source : from) {
    const auto known = std::find_if(
        to.begin(), to.end(), [&](const SourceStats& other) { return other.name == source.name; });
    if (known == to.end()) {
      to.push_back(source);
      continue;
    }
    known->examples += source.examples;
    known->tokens += source.tokens;
    known->targets += source.targets;
    known->truncated += source.truncated;
  }
}

std::vector<Part> measure_parts(const Dataset& set, int64_t count, int threads) {
  const int64_t workers = std::clamp<int64_t>(threads, 1, std::max<int64_t>(count, 1));
  std::vector<Part> parts(static_cast<size_t>(workers));
  std::vector<std::exception_ptr> failures(parts.size());
  std::vector<std::thread> pool;
  for (size_t w = 0; w < parts.size(); ++w) {
    pool.emplace_back([&, w] {
      const auto number = static_cast<int64_t>(w);
      try {
        parts[w] = measure_range(set, count * number / workers, count * (number + 1) / workers);
      } catch (...) {
        failures[w] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : pool) {
    thread.join();
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) {
      std::rethrow_exception(failure);
    }
  }
  return parts;
}

/// Rows that one lane would fill with these lengths, in order.
int64_t next_fit_rows(std::span<const int32_t> lengths, int64_t sequence_length) {
  int64_t rows = 0;
  int64_t used = sequence_length;
  for (const int32_t length : lengths) {
    if (used + length > sequence_length) {
      ++rows;
      used = 0;
    }
    used += length;
  }
  return rows;
}

/// Rows by data.packing_strategy, over windows in the order of the file.
int64_t packed_rows(std::span<const int32_t> lengths,
                    int64_t sequence_length,
                    const std::string& strategy) {
  if (strategy == "next_fit") {
    return next_fit_rows(lengths, sequence_length);
  }
  const auto row_length = static_cast<int32_t>(sequence_length);
  int64_t rows = 0;
  while (!lengths.empty()) {
    const auto window = lengths.first(std::min<size_t>(lengths.size(), WindowPlanner::kWindow));
    rows += strategy == "wrapped"
                ? pack_wrapped(window, row_length).rows()
                : pack_best_fit(window,
                                row_length,
                                strategy == "bfd_split" ? LongExamples::Split : LongExamples::Cut)
                      .rows();
    lengths = lengths.subspan(window.size());
  }
  return rows;
}

std::vector<int64_t> histogram_of(const std::vector<int32_t>& lengths, int64_t longest, int bins) {
  std::vector<int64_t> histogram(static_cast<size_t>(bins), 0);
  for (const int32_t length : lengths) {
    const int64_t bin = (static_cast<int64_t>(length) * bins - 1) / longest;
    ++histogram[static_cast<size_t>(std::clamp<int64_t>(bin, 0, bins - 1))];
  }
  return histogram;
}

void fill_distribution(std::vector<int32_t> lengths, Stats& stats) {
  std::sort(lengths.begin(), lengths.end());
  stats.shortest = lengths.front();
  stats.median = quantile(lengths, 0.5);
  stats.p90 = quantile(lengths, 0.9);
  stats.p99 = quantile(lengths, 0.99);
  stats.longest = lengths.back();
  stats.mean = static_cast<double>(stats.tokens) / static_cast<double>(lengths.size());
  stats.histogram = histogram_of(lengths, stats.longest, kHistogramBins);
}

std::string counts_of(const Example& example) {
  std::string text =
      fmt::format("{} tokens, {} trained", example.tokens.size(), example.target_count());
  if (example.rejected) {
    text += fmt::format("; rejected: {} tokens, {} trained",
                        example.rejected->tokens.size(),
                        example.rejected->target_count());
  }
  return text + "\n";
}

/// The text of an example, what is trained marked, and a line end.
std::string marked(const Dataset& set, const Example& example, const ShowOptions& options) {
  std::string out;
  text::StreamingDecoder decoder(set.bundle().tokenizer, false);
  Marker marker(out, options.color);
  for (size_t i = 0; i < example.tokens.size(); ++i) {
    marker.state(i > 0 && example.targets[i - 1] != kNoTarget);
    out += visible(decoder.push(example.tokens[i]));
    if (options.ids) {
      out += fmt::format("<{}>", example.tokens[i]);
    }
  }
  out += visible(decoder.finish());
  marker.close();
  return out + "\n";
}

}  // namespace

std::string show_example(const Dataset& set, int64_t index, const ShowOptions& options) {
  const Example example = set.get(index);
  std::string out = fmt::format("example {} ({}): ", index, set.origin(index));
  if (example.tokens.empty()) {
    return out + "left out by data.too_long, data.on_no_target or data.on_bad_record\n";
  }
  out += counts_of(example);
  if (example.rejected) {
    out += "chosen: " + marked(set, example, options);
    return out + "rejected: " + marked(set, *example.rejected, options);
  }
  if (example.label) {
    out += fmt::format("label: {}\n", *example.label);
  }
  return out + marked(set, example, options);
}

std::string show(const Dataset& set, std::span<const int64_t> indices, const ShowOptions& options) {
  std::string out = set.summary().text() + "\n";
  out += options.color
             ? fmt::format(
                   "{}trained tokens{}, {}others{}\n", kTrainedColor, kReset, kPlainColor, kReset)
             : std::string("[[trained tokens]], others\n");
  for (const int64_t index : indices) {
    out += "\n" + show_example(set, index, options);
  }
  return out;
}

Stats measure(const Dataset& set, int64_t limit, int threads) {
  const int64_t count = limit < 0 ? set.size() : std::min(limit, set.size());
  Stats stats;
  stats.sequence_length = set.summary().sequence_length;
  std::vector<int32_t> lengths;
  std::vector<int32_t> whole;
  for (const Part& part : measure_parts(set, count, threads)) {
    lengths.insert(lengths.end(), part.lengths.begin(), part.lengths.end());
    whole.insert(whole.end(), part.whole.begin(), part.whole.end());
    stats.skipped += part.skipped;
    stats.targets += part.targets;
    stats.characters += part.characters;
    stats.truncated += part.truncated;
    add_sources(part.sources, stats.sources);
  }
  stats.examples = static_cast<int64_t>(lengths.size());
  if (lengths.empty()) {
    return stats;
  }
  stats.tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  stats.packing_strategy = set.impl().config.packing_strategy;
  stats.packed_rows = packed_rows(lengths, stats.sequence_length, stats.packing_strategy);
  stats.packed_fill = static_cast<double>(stats.tokens) /
                      static_cast<double>(stats.packed_rows * stats.sequence_length);
  stats.cut_tokens = std::accumulate(whole.begin(), whole.end(), int64_t{0}) - stats.tokens;
  stats.longest_whole = *std::max_element(whole.begin(), whole.end());
  stats.whole_histogram = histogram_of(whole, stats.longest_whole, kPictureBins);
  fill_distribution(std::move(lengths), stats);
  return stats;
}

std::string stats_text(const Stats& stats, const Summary& summary) {
  std::string out = summary.text() + "\n\n";
  out += fmt::format("examples  {} used, {} left out, {} cut to {} tokens\n",
                     stats.examples,
                     stats.skipped,
                     stats.truncated,
                     stats.sequence_length);
  if (stats.examples == 0) {
    return out;
  }
  out += fmt::format("tokens    {} ({} trained, {:.1f} %), {:.2f} bytes of text a token\n",
                     stats.tokens,
                     stats.targets,
                     100.0 * static_cast<double>(stats.targets) / static_cast<double>(stats.tokens),
                     static_cast<double>(stats.characters) / static_cast<double>(stats.tokens));
  out +=
      fmt::format("length    shortest {}, median {}, mean {:.1f}, 90 % {}, 99 % {}, longest {}\n",
                  stats.shortest,
                  stats.median,
                  stats.mean,
                  stats.p90,
                  stats.p99,
                  stats.longest);
  if (stats.cut_tokens > 0) {
    out += fmt::format("cut       {} tokens ({:.1f} % of all); the longest example has {}\n",
                       stats.cut_tokens,
                       100.0 * static_cast<double>(stats.cut_tokens) /
                           static_cast<double>(stats.tokens + stats.cut_tokens),
                       stats.longest_whole);
  }
  out += fmt::format("packing   {}: {} rows of {} tokens, {:.1f} % full\n",
                     stats.packing_strategy,
                     stats.packed_rows,
                     stats.sequence_length,
                     100.0 * stats.packed_fill);
  for (const SourceStats& source : stats.sources) {
    out +=
        fmt::format("source    {}: {} examples, {} tokens ({:.1f} %), {} trained, {} cut\n",
                    source.name,
                    source.examples,
                    source.tokens,
                    100.0 * static_cast<double>(source.tokens) / static_cast<double>(stats.tokens),
                    source.targets,
                    source.truncated);
  }
  out += "\n";
  const int64_t most = *std::max_element(stats.histogram.begin(), stats.histogram.end());
  for (size_t bin = 0; bin < stats.histogram.size(); ++bin) {
    const int64_t count = stats.histogram[bin];
    const auto upper = static_cast<int64_t>(bin + 1) * stats.longest / kHistogramBins;
    std::string bar;
    for (int64_t i = 0; i < (count * kBarWidth + most - 1) / most; ++i) {
      bar += "\u2588";
    }
    out += fmt::format("{:>7} {:>9} {}\n", upper, count, bar);
  }
  return out;
}

}  // namespace kamerton::data
