// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/format.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"

#include "scalar.h"

namespace kamerton::config {
namespace {

struct KnobRow {
  std::string path;
  std::string allowed;
  std::string preset;  // the default
  Doc doc;
};

struct SectionRow {
  std::string path;
  std::string text;
  std::vector<KnobRow> knobs;
};

/// Writes down every knob with its default, section by section.
class Collector : public Fields {
 public:
  std::vector<SectionRow> sections{{"", "", {}}};

 protected:
  void visit_bool(std::string_view name, bool& value, const Doc& doc) override {
    add(name, doc, "true or false", value ? "true" : "false");
  }
  void visit_int(std::string_view name, int64_t& value, const Doc& doc) override {
    add(name, doc, "an integer", std::to_string(value));
  }
  void visit_double(std::string_view name, double& value, const Doc& doc) override {
    add(name, doc, "a number", fmt::format("{}", value));
  }
  void visit_string(std::string_view name, std::string& value, const Doc& doc) override {
    add(name, doc, "text", quote_string(value));
  }
  void visit_strings(std::string_view name,
                     std::vector<std::string>& value,
                     const Doc& doc) override {
    std::vector<std::string> items;
    std::transform(value.begin(), value.end(), std::back_inserter(items), quote_string);
    add(name,
        doc,
        doc.choices.empty() ? "a list of text" : "a list",
        fmt::format("[{}]", fmt::join(items, ", ")));
  }
  void visit_doubles(std::string_view name, std::vector<double>& value, const Doc& doc) override {
    add(name, doc, "a list of numbers", fmt::format("[{}]", fmt::join(value, ", ")));
  }
  void visit_optional_int(std::string_view name,
                          std::optional<int64_t>& value,
                          const Doc& doc) override {
    add(name, doc, "an integer", value ? std::to_string(*value) : "none");
  }
  void visit_optional_double(std::string_view name,
                             std::optional<double>& value,
                             const Doc& doc) override {
    add(name, doc, "a number", value ? fmt::format("{}", *value) : "none");
  }
  void visit_optional_string(std::string_view name,
                             std::optional<std::string>& value,
                             const Doc& doc) override {
    add(name, doc, "text", value ? quote_string(*value) : "none");
  }
  bool enter(std::string_view name, std::string_view text) override {
    open(std::string(name), std::string(text));
    return true;
  }
  void leave() override { open_.pop_back(); }
  ListPlan enter_list(std::string_view name, std::string_view text, size_t) override {
    list_name_ = std::string(name);
    list_text_ = std::string(text);
    return {};
  }
  void enter_item(size_t) override {
    open(list_name_ + ".<i>", list_text_ + " (a list: <i> counts from 0)");
  }
  void leave_list() override {}
  bool shows_examples() const override { return true; }

 private:
  std::string join(const std::string& name) const {
    const std::string& path = sections[open_.back()].path;
    return path.empty() ? name : path + "." + name;
  }
  void open(const std::string& name, std::string text) {
    sections.push_back({join(name), std::move(text), {}});
    open_.push_back(sections.size() - 1);
  }
  void add(std::string_view name, const Doc& doc, const std::string& noun, std::string preset) {
    sections[open_.back()].knobs.push_back(
        {join(std::string(name)), describe_allowed(noun, doc), std::move(preset), doc});
  }

  std::vector<size_t> open_{0};
  std::string list_name_;
  std::string list_text_;
};

bool is_below(const std::string& path, std::string_view prefix) {
  return prefix.empty() || path == prefix ||
         (path.size() > prefix.size() && path.starts_with(prefix) && path[prefix.size()] == '.');
}

/// Keeps the sections and knobs at or below `prefix`.
std::vector<SectionRow> select(const std::vector<SectionRow>& sections, std::string_view prefix) {
  std::vector<SectionRow> chosen;
  std::vector<std::string> names;
  for (const SectionRow& section : sections) {
    SectionRow kept{section.path, section.text, {}};
    names.push_back(section.path);
    for (const KnobRow& knob : section.knobs) {
      names.push_back(knob.path);
      if (is_below(knob.path, prefix)) {
        kept.knobs.push_back(knob);
      }
    }
    if (!kept.knobs.empty() || (!section.path.empty() && is_below(section.path, prefix))) {
      chosen.push_back(std::move(kept));
    }
  }
  if (chosen.empty() && !prefix.empty()) {
    const std::string near = nearest(prefix, names);
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "config.help",
         .what = "no such section or key",
         .got = "'" + std::string(prefix) + "'",
         .hint = near.empty() ? "the help without a name: it lists all" : "'" + near + "'"});
  }
  return chosen;
}

/// `text` broken at spaces into lines of at most `width` characters, each after `indent` spaces.
std::string wrap(const std::string& text, size_t indent, size_t width) {
  const std::string margin(indent, ' ');
  std::string result = margin;
  size_t column = indent;
  for (size_t start = 0; start < text.size();) {
    const size_t end = std::min(text.find(' ', start), text.size());
    const size_t length = end - start;
    if (column > indent && column + 1 + length > width) {
      result += "\n" + margin;
      column = indent;
    } else if (column > indent) {
      result += ' ';
      ++column;
    }
    result.append(text, start, length);
    column += length;
    start = end + 1;
  }
  return result + "\n";
}

std::string meaning(const Doc& doc) {
  std::string text = doc.text;
  if (!doc.unit.empty()) {
    text += " Unit: " + doc.unit + ".";
  }
  if (!doc.cost.empty()) {
    text += " Cost: " + doc.cost;
  }
  return text;
}

std::string escape_cell(std::string text) {
  for (size_t at = 0; (at = text.find_first_of("|<", at)) != std::string::npos; at += 2) {
    text.insert(at, "\\");
  }
  return text;
}

}  // namespace

std::vector<std::string> all_keys(const std::function<void(Fields&)>& describe_config) {
  Collector collector;
  describe_config(collector);
  std::vector<std::string> keys;
  for (const SectionRow& section : collector.sections) {
    if (!section.path.empty()) {
      keys.push_back(section.path);
    }
    std::transform(section.knobs.begin(),
                   section.knobs.end(),
                   std::back_inserter(keys),
                   [](const KnobRow& knob) { return knob.path; });
  }
  return keys;
}

std::string help_text(const std::function<void(Fields&)>& describe_config,
                      std::string_view prefix) {
  Collector collector;
  describe_config(collector);
  std::string text;
  for (const SectionRow& section : select(collector.sections, prefix)) {
    text += text.empty() ? "" : "\n";
    if (!section.path.empty()) {
      text += wrap(section.path + ": " + section.text, 0, 100);
    }
    for (const KnobRow& knob : section.knobs) {
      text += fmt::format("  {}: {}, default {}\n", knob.path, knob.allowed, knob.preset);
      text += wrap(meaning(knob.doc), 6, 100);
    }
  }
  return text;
}

std::string help_markdown(const std::function<void(Fields&)>& describe_config) {
  Collector collector;
  describe_config(collector);
  std::string text;
  for (const SectionRow& section : select(collector.sections, {})) {
    text += text.empty() ? "" : "\n";
    if (!section.path.empty()) {
      text += fmt::format("## `{}`\n{}\n\n", section.path, escape_cell(section.text));
    }
    if (section.knobs.empty()) {
      continue;
    }
    text += "| Key | Value | Default | Unit | What it does |\n|---|---|---|---|---|\n";
    for (const KnobRow& knob : section.knobs) {
      const std::string cost = knob.doc.cost.empty() ? "" : " *Cost:* " + knob.doc.cost;
      text += fmt::format("| `{}` | {} | `{}` | {} | {} |\n",
                          knob.path,
                          escape_cell(knob.allowed),
                          knob.preset,
                          escape_cell(knob.doc.unit),
                          escape_cell(knob.doc.text + cost));
    }
  }
  return text;
}

}  // namespace kamerton::config
