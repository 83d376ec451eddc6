// SPDX-License-Identifier: Apache-2.0
#include "kamerton/data/picture.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/text/bundle.h"

namespace kamerton::data {
namespace {

constexpr int kWidth = 900;
constexpr int kLeft = 70;
constexpr int kPlotWidth = 790;
constexpr int kPlotHeight = 240;
constexpr int kPlotTop = 70;
constexpr int kBarHeight = 22;
constexpr size_t kMostSources = 24;

/// For text and attributes of HTML and SVG; other control characters than line ends become U+FFFD,
/// which XML cannot hold otherwise.
std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\n':
      case '\t':
        result += c;
        break;
      default:
        if ((static_cast<uint8_t>(c) < 0x20) || c == 0x7F) {
          result += "\xEF\xBF\xBD";
        } else {
          result += c;
        }
    }
  }
  return result;
}

double share(int64_t part, int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1));
}

std::string label(double x, double y, std::string_view anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
                     x,
                     y,
                     anchor,
                     escaped(text));
}

std::string lengths_plot(const Stats& stats) {
  std::string out;
  const int64_t most =
      *std::max_element(stats.whole_histogram.begin(), stats.whole_histogram.end());
  const double step = static_cast<double>(kPlotWidth) / kPictureBins;
  const double bottom = kPlotTop + kPlotHeight;
  for (size_t bin = 0; bin < stats.whole_histogram.size(); ++bin) {
    const double height = kPlotHeight * share(stats.whole_histogram[bin], most);
    const int64_t upper = static_cast<int64_t>(bin + 1) * stats.longest_whole / kPictureBins;
    const bool cut = upper > stats.sequence_length;
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" class=\"{}\">"
        "<title>up to {} tokens: {} examples</title></rect>\n",
        kLeft + step * static_cast<double>(bin),
        bottom - height,
        step - 1,
        height,
        cut ? "cut" : "bar",
        upper,
        stats.whole_histogram[bin]);
  }
  out += label(kLeft, bottom + 18, "start", "0");
  out +=
      label(kLeft + kPlotWidth, bottom + 18, "end", fmt::format("{} tokens", stats.longest_whole));
  out += label(kLeft - 8, kPlotTop + 5, "end", fmt::format("{}", most));
  const double limit = kPlotWidth * share(stats.sequence_length, stats.longest_whole);
  if (limit <= kPlotWidth) {
    out += fmt::format("<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\"/>\n",
                       kLeft + limit,
                       kPlotTop - 8,
                       bottom);
    out += label(kLeft + limit,
                 kPlotTop - 12,
                 limit > kPlotWidth / 2 ? "end" : "start",
                 fmt::format("sequence_length {}", stats.sequence_length));
  }
  return out;
}

std::string sources_plot(const Stats& stats, int top) {
  std::string out = label(kLeft, top, "start", "tokens of each source: trained, others");
  int64_t most = 1;
  for (const SourceStats& source : stats.sources) {
    most = std::max(most, source.tokens);
  }
  double y = top + 12;
  for (size_t i = 0; i < std::min(stats.sources.size(), kMostSources); ++i) {
    const SourceStats& source = stats.sources[i];
    const double whole = kPlotWidth * share(source.tokens, most);
    const double trained = kPlotWidth * share(source.targets, most);
    out += fmt::format(
        "<rect x=\"{0}\" y=\"{1:.1f}\" width=\"{2:.1f}\" height=\"{4}\" class=\"other\"/>"
        "<rect x=\"{0}\" y=\"{1:.1f}\" width=\"{3:.1f}\" height=\"{4}\" class=\"bar\"/>\n",
        kLeft,
        y,
        whole,
        trained,
        kBarHeight - 6);
    out += label(kLeft + 6,
                 y + kBarHeight - 10,
                 "start",
                 fmt::format("{}: {} tokens, {} examples",
                             source.name.substr(source.name.rfind('/') + 1),
                             source.tokens,
                             source.examples));
    y += kBarHeight;
  }
  return out;
}

/// The text that each token adds, in order.
std::vector<std::string> pieces_of(const text::Tokenizer& tokenizer,
                                   const std::vector<int32_t>& ids) {
  std::vector<std::string> pieces;
  text::StreamingDecoder decoder(tokenizer, false);
  for (const int32_t id : ids) {
    pieces.push_back(decoder.push(id));
  }
  if (!pieces.empty()) {
    pieces.back() += decoder.finish();
  }
  return pieces;
}

std::string example_html(const Dataset& set, int64_t index) {
  const Example example = set.get(index);
  std::string out =
      fmt::format("<h2>example {} ({})</h2>\n", index + 1, escaped(set.origin(index)));
  if (example.tokens.empty()) {
    return out + "<p>left out by data.too_long, data.on_no_target or data.on_bad_record</p>\n";
  }
  out += fmt::format(
      "<p>{} tokens, {} trained</p>\n<pre>", example.tokens.size(), example.target_count());
  const auto pieces = pieces_of(set.bundle().tokenizer, example.tokens);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const bool trained = i > 0 && example.targets[i - 1] != kNoTarget;
    out += fmt::format("<span class=\"{}{}\" title=\"{}: id {}\">{}</span>",
                       trained ? "t" : "p",
                       i % 2,
                       i,
                       example.tokens[i],
                       escaped(pieces[i]));
  }
  return out + "</pre>\n";
}

}  // namespace

std::string stats_svg(const Stats& stats) {
  const auto rows = static_cast<int>(std::min(stats.sources.size(), kMostSources));
  const int sources_top = kPlotTop + kPlotHeight + 60;
  const int height = sources_top + rows * kBarHeight + 60;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"sans-serif\" font-size=\"13\">\n"
      "<style>.bar{{fill:#2a7f62}}.cut{{fill:#c8553d}}.other{{fill:#c9d6d0}}"
      "line{{stroke:#c8553d;stroke-width:2}}text{{fill:#222}}</style>\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kWidth,
      height);
  out += label(kLeft,
               24,
               "start",
               fmt::format("{} examples, {} tokens, {} trained; {} examples cut, {} tokens lost",
                           stats.examples,
                           stats.tokens,
                           stats.targets,
                           stats.truncated,
                           stats.cut_tokens));
  if (stats.examples > 0) {
    out += lengths_plot(stats);
    out += sources_plot(stats, sources_top);
    out += label(kLeft,
                 height - 20,
                 "start",
                 fmt::format("packed: {} rows of {} tokens, {:.1f} % full",
                             stats.packed_rows,
                             stats.sequence_length,
                             100.0 * stats.packed_fill));
  }
  return out + "</svg>\n";
}

std::string show_html(const Dataset& set, std::span<const int64_t> indices) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Training examples"
      "</title>\n<style>body{font-family:sans-serif;max-width:70em;margin:2em auto}"
      "pre{white-space:pre-wrap;border:1px solid #ccc;padding:1em}"
      ".t0{background:#a9e2c4}.t1{background:#c8f0da}.p0{color:#777}.p1{color:#999}</style></head>"
      "<body>\n";
  out +=
      "<pre>" + escaped(set.summary().text()) +
      "</pre>\n<p><span class=\"t0\">trained tokens</span> <span class=\"p0\">others</span></p>\n";
  for (const int64_t index : indices) {
    out += example_html(set, index);
  }
  return out + "</body></html>\n";
}

}  // namespace kamerton::data
