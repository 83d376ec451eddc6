// SPDX-License-Identifier: Apache-2.0
#include "kamerton/config/load.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "loader.h"
#include "yaml_tree.h"

namespace kamerton::config {
namespace {

constexpr size_t kReadLimit =
    (size_t{1} << 20) + 1;  // one more than allowed, so that the parser sees the excess

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kReadLimit, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file && !file.eof()) {
    complain_at(path,
                {.what = "the configuration file cannot be read",
                 .hint = "the path of an existing YAML file"});
  }
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

std::vector<std::string> split_path(const std::string& path) {
  std::vector<std::string> parts(1);
  for (const char c : path) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

YamlNode& list_element(YamlNode& list, const std::string& part, const std::string& label) {
  size_t index = 0;
  const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
  if (error != std::errc() || end != part.data() + part.size() || index > list.items.size()) {
    complain_at(label,
                {.what = "no such element of a list",
                 .got = part,
                 .allowed = "0 to " + std::to_string(list.items.size())});
  }
  if (index == list.items.size()) {
    list.items.emplace_back();
  }
  return list.items[index];
}

/// The child named `part`, made when absent. A value that is empty so far becomes a section.
YamlNode& child(YamlNode& node,
                const std::string& part,
                const Place& place,
                const std::string& label) {
  if (node.kind == YamlNode::Kind::List) {
    return list_element(node, part, label);
  }
  if (node.kind == YamlNode::Kind::Null) {
    node.kind = YamlNode::Kind::Map;
    node.place = place;
  }
  if (node.kind != YamlNode::Kind::Map) {
    complain_at(
        label,
        {.what = "the key '" + part + "' is below a value, not below a section", .got = node.text});
  }
  if (YamlNode::Entry* entry = node.find(part)) {
    return entry->value;
  }
  node.entries.push_back({part, place, {}});
  return node.entries.back().value;
}

std::string_view last_name(std::string_view path) {
  return path.substr(path.rfind('.') + 1);
}

/// Where an unknown key belongs: what another program calls so, else the key of that name that is
/// nested least. Empty when there is none.
std::string place_of(std::string_view unknown,
                     const std::vector<std::string>& keys,
                     std::span<const NameElsewhere> elsewhere) {
  const std::string_view name = last_name(unknown);
  const auto known = std::find_if(
      elsewhere.begin(), elsewhere.end(), [&](const auto& other) { return other.name == name; });
  if (known != elsewhere.end()) {
    return std::string(known->key);
  }
  const auto depth = [](const std::string& key) {
    return std::count(key.begin(), key.end(), '.') + (key.find('<') == std::string::npos ? 0 : 100);
  };
  const std::string* best = nullptr;
  for (const std::string& key : keys) {
    if (last_name(key) == name && (best == nullptr || depth(key) < depth(*best))) {
      best = &key;
    }
  }
  return best == nullptr ? "" : *best;
}

}  // namespace

struct Document::Tree {
  YamlNode root;
  YamlSources sources;
};

Document::Document() : tree_(std::make_unique<Tree>()) {}
Document::~Document() = default;
Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;

Document Document::from_file(const std::string& path) {
  return from_text(read_text(path), path);
}

Document Document::from_text(std::string_view text, const std::string& origin) {
  Document document;
  Tree& tree = *document.tree_;
  const int source = tree.sources.add(origin, true);
  tree.root = parse_yaml(text, source, tree.sources);
  return document;
}

void Document::set(const std::string& assignment) {
  const size_t equals = assignment.find('=');
  const std::string path = assignment.substr(0, equals);
  const std::string label = "--set " + path;
  const std::vector<std::string> parts = split_path(path);
  const bool has_gap =
      std::any_of(parts.begin(), parts.end(), [](const std::string& part) { return part.empty(); });
  if (equals == std::string::npos || has_gap) {
    complain_at("--set " + assignment,
                {.what = "not an assignment", .allowed = "key=value or section.key=value"});
  }
  const int source = tree_->sources.add(label, false);
  YamlNode value =
      parse_yaml(std::string_view(assignment).substr(equals + 1), source, tree_->sources);
  const Place place{source, 0, 0};
  value.place = place;
  YamlNode* node = &tree_->root;
  for (const std::string& part : parts) {
    node = &child(*node, part, place, label);
  }
  *node = std::move(value);
}

void Document::fill_with(const std::function<void(Fields&)>& describe_config,
                         std::span<const NameElsewhere> elsewhere) const {
  Loader loader(tree_->root, tree_->sources, [&](const std::string& unknown) {
    return place_of(unknown, all_keys(describe_config), elsewhere);
  });
  describe_config(loader);
  loader.finish();
}

}  // namespace kamerton::config
