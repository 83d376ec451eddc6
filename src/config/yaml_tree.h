// SPDX-License-Identifier: Apache-2.0
// YAML as a tree that remembers where each value stood. yaml-cpp is used as an event parser only:
// its own nodes accept duplicate keys and lose the positions of keys.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kamerton/core/error.h"

namespace kamerton::config {

/// Where a value comes from: an index into YamlSources, and a place in that text (from 1; 0: none).
struct Place {
  int source = 0;
  int line = 0;
  int column = 0;
};

struct YamlNode {
  enum class Kind { Null, Plain, Quoted, List, Map };
  struct Entry;

  Kind kind = Kind::Null;
  std::string text;             ///< scalars
  std::vector<YamlNode> items;  ///< List
  std::vector<Entry> entries;   ///< Map, in the order of the text
  Place place;

  bool is_scalar() const { return kind == Kind::Plain || kind == Kind::Quoted; }
  const Entry* find(std::string_view key) const;
  Entry* find(std::string_view key);
};

struct YamlNode::Entry {
  std::string key;
  Place key_place;
  YamlNode value;
};

/// "run.yaml" and "--set a.b", by Place::source.
class YamlSources {
 public:
  int add(std::string name, bool has_lines);
  /// "run.yaml:3:5", or "--set a.b".
  std::string describe(const Place& place) const;
  bool is_override(const Place& place) const {
    return !sources_[static_cast<size_t>(place.source)].second;
  }

 private:
  std::vector<std::pair<std::string, bool>> sources_;
};

/// Parses one document (an empty text is Null). Throws ErrorKind::Config, see Document.
YamlNode parse_yaml(std::string_view text, int source, const YamlSources& sources);

/// ErrorKind::Config at a place: "[config] run.yaml:3:5: <what>".
[[noreturn]] void complain_at(const std::string& place, core::Complaint complaint);

}  // namespace kamerton::config
