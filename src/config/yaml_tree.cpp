// SPDX-License-Identifier: Apache-2.0
#include "yaml_tree.h"

#include <algorithm>
#include <istream>
#include <sstream>
#include <unordered_map>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

namespace kamerton::config {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr size_t kMaxDepth = 64;

/// The length of the UTF-8 sequence at `text[i]`, 0 when it is not one (overlong, surrogate, beyond
/// U+10FFFF).
size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) {
    return k < text.size() ? static_cast<unsigned char>(text[k]) : 0U;
  };
  const unsigned first = byte(i);
  const size_t length = first < 0x80                    ? 1
                        : first >= 0xC2 && first < 0xE0 ? 2
                        : first >= 0xE0 && first < 0xF0 ? 3
                        : first >= 0xF0 && first < 0xF5 ? 4
                                                        : 0;
  for (size_t k = 1; k < length; ++k) {
    if ((byte(i + k) & 0xC0U) != 0x80) {
      return 0;
    }
  }
  const unsigned second = byte(i + 1);
  const bool bad = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                   (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  return bad ? 0 : length;
}

/// yaml-cpp would replace bad bytes without a word and guess at UTF-16.
void check_bytes(std::string_view text, int source, const YamlSources& sources) {
  Place place{source, 1, 1};
  if (text.size() > kMaxBytes) {
    complain_at(sources.describe({source, 0, 0}),
                {.what = "the text is too long",
                 .got = std::to_string(text.size()) + " bytes",
                 .allowed = "1 MiB"});
  }
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    const auto byte = static_cast<unsigned char>(text[i]);
    if (length == 0) {
      complain_at(sources.describe(place), {.what = "the text is not valid UTF-8"});
    }
    if ((byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7F) {
      complain_at(
          sources.describe(place),
          {.what = "a control character is not allowed", .got = "byte " + std::to_string(byte)});
    }
    place.line += byte == '\n' ? 1 : 0;
    place.column = byte == '\n' ? 1 : place.column + 1;
    i += length;
  }
}

/// Collects the events of one document.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(int source, const YamlSources& sources) : source_(source), sources_(sources) {}

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (expects_key()) {
      complain(mark, {.what = "a key is missing before ':'"});
    }
    put(start(YamlNode::Kind::Null, mark));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    complain(mark, {.what = "aliases (*name) are not supported", .hint = "writing the value out"});
  }
  void OnScalar(const YAML::Mark& mark,
                const std::string& tag,
                YAML::anchor_t,
                const std::string& text) override {
    check_tag(mark, tag);
    if (expects_key()) {
      add_key(mark, text);
      return;
    }
    YamlNode node = start(tag == "?" ? YamlNode::Kind::Plain : YamlNode::Kind::Quoted, mark);
    node.text = text;
    put(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark,
                       const std::string& tag,
                       YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::List, mark, tag);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark,
                  const std::string& tag,
                  YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    open(YamlNode::Kind::Map, mark, tag);
  }
  void OnMapEnd() override { close(); }

  YamlNode root;

 private:
  struct Frame {
    YamlNode node;
    bool is_key =
        false;  // a fault, but said at the end: a bracket left open looks like a key to yaml-cpp
    bool has_key = false;
    std::unordered_map<std::string, int> lines;  // key -> line, to find duplicates
  };

  bool expects_key() const {
    return !frames_.empty() && frames_.back().node.kind == YamlNode::Kind::Map &&
           !frames_.back().has_key;
  }
  Place place_of(const YAML::Mark& mark) const { return {source_, mark.line + 1, mark.column + 1}; }
  [[noreturn]] void complain(const YAML::Mark& mark, core::Complaint complaint) const {
    complain_at(sources_.describe(place_of(mark)), std::move(complaint));
  }
  void check_tag(const YAML::Mark& mark, const std::string& tag) const {
    if (!tag.empty() && tag != "?" && tag != "!" && tag != "tag:yaml.org,2002:str") {
      complain(mark, {.what = "tags are not supported", .got = tag});
    }
  }
  YamlNode start(YamlNode::Kind kind, const YAML::Mark& mark) const {
    YamlNode node;
    node.kind = kind;
    node.place = place_of(mark);
    return node;
  }
  void open(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    check_tag(mark, tag);
    if (frames_.size() >= kMaxDepth) {
      complain(mark, {.what = "nested too deep", .allowed = std::to_string(kMaxDepth) + " levels"});
    }
    frames_.push_back({start(kind, mark), expects_key(), false, {}});
  }
  void close() {
    YamlNode node = std::move(frames_.back().node);
    if (frames_.back().is_key) {
      complain_at(sources_.describe(node.place), {.what = "a list or a section cannot be a key"});
    }
    frames_.pop_back();
    put(std::move(node));
  }
  void add_key(const YAML::Mark& mark, const std::string& key) {
    Frame& frame = frames_.back();
    const auto [first, is_new] = frame.lines.emplace(key, mark.line + 1);
    if (!is_new) {
      complain(mark,
               {.what = "the key '" + key + "' appears twice",
                .hint = "removing one; the first is on line " + std::to_string(first->second)});
    }
    frame.node.entries.push_back({key, place_of(mark), {}});
    frame.has_key = true;
  }
  void put(YamlNode&& node) {
    if (frames_.empty()) {
      root = std::move(node);
    } else if (frames_.back().node.kind == YamlNode::Kind::Map) {
      frames_.back().node.entries.back().value = std::move(node);
      frames_.back().has_key = false;
    } else {
      frames_.back().node.items.push_back(std::move(node));
    }
  }

  int source_;
  const YamlSources& sources_;
  std::vector<Frame> frames_;
};

}  // namespace

const YamlNode::Entry* YamlNode::find(std::string_view key) const {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  return found == entries.end() ? nullptr : &*found;
}

YamlNode::Entry* YamlNode::find(std::string_view key) {
  return const_cast<Entry*>(std::as_const(*this).find(key));
}

int YamlSources::add(std::string name, bool has_lines) {
  sources_.emplace_back(std::move(name), has_lines);
  return static_cast<int>(sources_.size()) - 1;
}

std::string YamlSources::describe(const Place& place) const {
  const auto& [name, has_lines] = sources_[static_cast<size_t>(place.source)];
  if (!has_lines || place.line <= 0) {
    return name;
  }
  return name + ":" + std::to_string(place.line) + ":" + std::to_string(place.column);
}

YamlNode parse_yaml(std::string_view text, int source, const YamlSources& sources) {
  check_bytes(text, source, sources);
  TreeBuilder builder(source, sources);
  std::istringstream stream{std::string(text)};
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    YamlNode first = std::move(builder.root);
    builder.root = {};
    if (parser.HandleNextDocument(builder)) {
      complain_at(sources.describe(builder.root.place), {.what = "more than one YAML document"});
    }
    return first;
  } catch (const YAML::Exception& error) {
    complain_at(sources.describe({source, error.mark.line + 1, error.mark.column + 1}),
                {.what = "not valid YAML: " + error.msg});
  }
}

void complain_at(const std::string& place, core::Complaint complaint) {
  complaint.where = "config";
  complaint.what = place + ": " + complaint.what;
  throw core::Error(core::ErrorKind::Config, complaint);
}

}  // namespace kamerton::config
