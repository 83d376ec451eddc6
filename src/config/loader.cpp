// SPDX-License-Identifier: Apache-2.0
#include "loader.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "kamerton/config/load.h"

#include "scalar.h"

namespace kamerton::config {
namespace {

std::optional<size_t> read_index(const std::string& text) {
  size_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return index;
}

/// What people write by habit from other formats.
std::string hint_for(const YamlNode& node) {
  if (node.kind == YamlNode::Kind::Quoted) {
    return "the value without quotes";
  }
  if (node.text == "yes" || node.text == "on" || node.text == "True" || node.text == "TRUE") {
    return "true";
  }
  if (node.text == "no" || node.text == "off" || node.text == "False" || node.text == "FALSE") {
    return "false";
  }
  return node.text == "none" || node.text == "None" ? "null" : "";
}

}  // namespace

Loader::Loader(const YamlNode& root,
               const YamlSources& sources,
               std::function<std::string(const std::string&)> place_of)
    : sources_(sources), place_of_(std::move(place_of)) {
  check_is_map(root, "the configuration");
  levels_.push_back({&root, "", {}});
}

void Loader::finish() {
  check_unknown(levels_.back());
}

std::string Loader::path_of(std::string_view name) const {
  const std::string& path = levels_.back().path;
  return path.empty() ? std::string(name) : fmt::format("{}.{}", path, name);
}

/// The node of a key, or null when the key is absent; either way the key is now known.
const YamlNode* Loader::take(std::string_view name) {
  Level& level = levels_.back();
  level.names.emplace_back(name);
  if (level.node == nullptr) {
    return nullptr;
  }
  const YamlNode::Entry* entry = level.node->find(name);
  return entry == nullptr ? nullptr : &entry->value;
}

void Loader::refuse(const YamlNode& node,
                    const std::string& path,
                    const std::string& allowed,
                    const std::string& hint) const {
  complain_at(sources_.describe(node.place),
              {.what = path + " has a value that is not allowed",
               .got = describe_found(node),
               .allowed = allowed,
               .hint = hint});
}

void Loader::check_is_map(const YamlNode& node, const std::string& path) const {
  if (node.kind != YamlNode::Kind::Map && node.kind != YamlNode::Kind::Null) {
    refuse(node, path, "a section: keys with values", "");
  }
}

void Loader::check_unknown(const Level& level) const {
  if (level.node == nullptr) {
    return;
  }
  for (const YamlNode::Entry& entry : level.node->entries) {
    if (std::find(level.names.begin(), level.names.end(), entry.key) != level.names.end()) {
      continue;
    }
    const std::string prefix = level.path.empty() ? "" : level.path + ".";
    std::vector<std::string> hints;
    if (const size_t dot = entry.key.find('.'); dot != std::string::npos) {
      complain_at(
          sources_.describe(entry.key_place),
          {.what = "unknown key '" + prefix + entry.key + "': dots do not reach into sections",
           .hint = fmt::format(
               "{}: {{{}: ...}}", entry.key.substr(0, dot), entry.key.substr(dot + 1))});
    }
    if (const std::string place = place_of_(prefix + entry.key); !place.empty()) {
      hints.push_back("'" + place + "'");
    }
    if (const std::string near = nearest(entry.key, level.names); !near.empty()) {
      hints.push_back("'" + prefix + near + "'");
    }
    complain_at(sources_.describe(entry.key_place),
                {.what = "unknown key '" + prefix + entry.key + "'",
                 .allowed = hints.empty() ? fmt::format("{}", fmt::join(level.names, ", ")) : "",
                 .hint = fmt::format("{}", fmt::join(hints, " or "))});
  }
}

int64_t Loader::to_int(const YamlNode& node, const std::string& path, const Doc& doc) const {
  const auto value = read_int(node);
  if (!value || !in_range(static_cast<double>(*value), doc)) {
    refuse(node, path, describe_allowed("an integer", doc), value ? "" : hint_for(node));
  }
  return *value;
}

double Loader::to_double(const YamlNode& node, const std::string& path, const Doc& doc) const {
  const auto value = read_double(node);
  if (!value || !in_range(*value, doc)) {
    refuse(node, path, describe_allowed("a number", doc), value ? "" : hint_for(node));
  }
  return *value;
}

std::string Loader::to_string(const YamlNode& node, const std::string& path, const Doc& doc) const {
  const auto value =
      node.is_scalar() && !doc.choices.empty() ? std::optional(node.text) : read_string(node);
  if (!value) {
    refuse(node,
           path,
           describe_allowed("text", doc),
           node.is_scalar() ? "\"" + node.text + "\" in quotes" : "");
  }
  if (!doc.choices.empty() &&
      std::find(doc.choices.begin(), doc.choices.end(), *value) == doc.choices.end()) {
    refuse(node, path, describe_allowed("text", doc), nearest(*value, doc.choices));
  }
  return *value;
}

const std::vector<YamlNode>& Loader::to_list(const YamlNode& node,
                                             const std::string& path,
                                             const std::string& allowed) const {
  if (node.kind != YamlNode::Kind::List) {
    refuse(node, path, allowed, node.is_scalar() ? "[" + node.text + "]" : "");
  }
  return node.items;
}

void Loader::visit_bool(std::string_view name, bool& value, const Doc&) {
  if (const YamlNode* node = take(name)) {
    const auto found = read_bool(*node);
    if (!found) {
      refuse(*node, path_of(name), "true or false", hint_for(*node));
    }
    value = *found;
  }
}

void Loader::visit_int(std::string_view name, int64_t& value, const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    value = to_int(*node, path_of(name), doc);
  }
}

void Loader::visit_double(std::string_view name, double& value, const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    value = to_double(*node, path_of(name), doc);
  }
}

void Loader::visit_string(std::string_view name, std::string& value, const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    value = to_string(*node, path_of(name), doc);
  }
}

void Loader::visit_strings(std::string_view name, std::vector<std::string>& value, const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    const std::string path = path_of(name);
    value.clear();
    for (const YamlNode& item : to_list(*node, path, "a list of text: [a, b]")) {
      value.push_back(to_string(item, fmt::format("{}.{}", path, value.size()), doc));
    }
  }
}

void Loader::visit_doubles(std::string_view name, std::vector<double>& value, const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    const std::string path = path_of(name);
    value.clear();
    for (const YamlNode& item : to_list(*node, path, "a list of numbers: [0.9, 0.95]")) {
      value.push_back(to_double(item, fmt::format("{}.{}", path, value.size()), doc));
    }
  }
}

void Loader::visit_optional_int(std::string_view name,
                                std::optional<int64_t>& value,
                                const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    value = node->kind == YamlNode::Kind::Null ? std::nullopt
                                               : std::optional(to_int(*node, path_of(name), doc));
  }
}

void Loader::visit_optional_double(std::string_view name,
                                   std::optional<double>& value,
                                   const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    value = node->kind == YamlNode::Kind::Null
                ? std::nullopt
                : std::optional(to_double(*node, path_of(name), doc));
  }
}

void Loader::visit_optional_string(std::string_view name,
                                   std::optional<std::string>& value,
                                   const Doc& doc) {
  if (const YamlNode* node = take(name)) {
    value = node->kind == YamlNode::Kind::Null
                ? std::nullopt
                : std::optional(to_string(*node, path_of(name), doc));
  }
}

bool Loader::enter(std::string_view name, std::string_view) {
  const std::string path = path_of(name);
  const YamlNode* node = take(name);
  if (node != nullptr) {
    check_is_map(*node, path);
  }
  levels_.push_back({node, path, {}});
  return true;
}

void Loader::leave() {
  check_unknown(levels_.back());
  levels_.pop_back();
}

/// `--set tasks.0.weight=2` without a list in the file: changes to the elements of the default
/// list.
Fields::ListPlan Loader::plan_patch(const YamlNode& node,
                                    const std::string& path,
                                    size_t present) const {
  std::vector<size_t> indices;
  for (const YamlNode::Entry& entry : node.entries) {
    const auto index = read_index(entry.key);
    if (!index || !sources_.is_override(entry.key_place)) {
      refuse(node, path, "a list of sections: each starts with '- '", "");
    }
    indices.push_back(*index);
  }
  std::sort(indices.begin(), indices.end());
  size_t count = present;
  for (const size_t index : indices) {
    if (index > count) {
      complain_at(sources_.describe(node.place),
                  {.what = fmt::format("{} has no element {}", path, index),
                   .allowed = fmt::format("0 to {}", count)});
    }
    count = std::max(count, index + 1);
  }
  return {count, false};
}

Fields::ListPlan Loader::enter_list(std::string_view name, std::string_view, size_t present) {
  const std::string path = path_of(name);
  const YamlNode* node = take(name);
  levels_.push_back({node, path, {}});
  if (node == nullptr || node->kind == YamlNode::Kind::Null) {
    return {present, false};
  }
  if (node->kind == YamlNode::Kind::Map) {
    return plan_patch(*node, path, present);
  }
  return {to_list(*node, path, "a list of sections: each starts with '- '").size(), true};
}

void Loader::enter_item(size_t index) {
  const YamlNode* list = levels_.back().node;
  const YamlNode* item = nullptr;
  if (list != nullptr && list->kind == YamlNode::Kind::List) {
    item = &list->items[index];
  } else if (list != nullptr) {
    const YamlNode::Entry* entry = list->find(std::to_string(index));
    item = entry == nullptr ? nullptr : &entry->value;
  }
  const std::string path = path_of(std::to_string(index));
  if (item != nullptr) {
    check_is_map(*item, path);
  }
  levels_.push_back({item, path, {}});
}

void Loader::leave_list() {
  levels_.pop_back();
}

}  // namespace kamerton::config
