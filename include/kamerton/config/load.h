// SPDX-License-Identifier: Apache-2.0
// YAML and --set a.b=c into a configuration struct; and back.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/config/field.h"

namespace kamerton::config {

/// What other programs call a knob: `name` there, the dotted `key` here.
struct NameElsewhere {
  std::string_view name;
  std::string_view key;
};

/// A parsed YAML document with overrides, ready to fill a struct. Every error is ErrorKind::Config
/// and says file:line:column, the dotted key, what was found, what is allowed and the nearest valid
/// key.
class Document {
 public:
  /// At most 1 MiB, depth 64, no aliases, valid UTF-8, no duplicate keys.
  static Document from_file(const std::string& path);
  static Document from_text(std::string_view text, const std::string& origin);

  /// "a.b=c" with c in YAML syntax; `a.0.b` reaches into lists (the next free index appends). Later
  /// ones win over earlier ones and over the file; an error in one says "--set a.b" instead of a
  /// place in the file.
  void set(const std::string& assignment);

  /// Fills `config` by its describe(); keys that no describe() asked for are errors. Keeps defaults
  /// for absent keys. An unknown key that is in `elsewhere`, or a key of another section, is told
  /// where it belongs.
  template <class Config>
  void fill(Config& config, std::span<const NameElsewhere> elsewhere = {}) const {
    fill_with([&config](Fields& fields) { describe(fields, config); }, elsewhere);
  }

  ~Document();
  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;

 private:
  Document();
  void fill_with(const std::function<void(Fields&)>& describe_config,
                 std::span<const NameElsewhere> elsewhere) const;
  struct Tree;
  std::unique_ptr<Tree> tree_;
};

/// The struct as YAML text with every knob written out, in the order of its describe() (what a run
/// leaves as config.yaml). Loading the text gives an equal struct; so a number that is not finite
/// is ErrorKind::Internal.
std::string dump_yaml(const std::function<void(Fields&)>& describe_config);
template <class Config>
std::string dump(const Config& config) {
  Config copy = config;
  return dump_yaml([&copy](Fields& fields) { describe(fields, copy); });
}

/// Plain-text help: one paragraph per section, each knob with default, unit, range and cost.
/// `prefix` selects a section or a knob ("optim", "optim.lr"); one that matches nothing is
/// ErrorKind::Config naming the nearest.
std::string help_text(const std::function<void(Fields&)>& describe_config,
                      std::string_view prefix = {});
/// The same as a Markdown table per section (configs/README.md is generated from it).
std::string help_markdown(const std::function<void(Fields&)>& describe_config);

/// The dotted paths of all sections and knobs, in the order of describe(); elements of lists as
/// `list.<i>`.
std::vector<std::string> all_keys(const std::function<void(Fields&)>& describe_config);

/// The candidate with the smallest edit distance to `word`, or empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace kamerton::config
