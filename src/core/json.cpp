// SPDX-License-Identifier: Apache-2.0
#include "kamerton/core/json.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::core {
namespace {

constexpr size_t kLinearScanKeys = 8;

/// Reads the text and tells, through `*reached_`, how far the lexer has come: SAX events carry no
/// position.
class TrackedIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  TrackedIterator(const char* at, const char** reached) : at_(at), reached_(reached) {}
  reference operator*() const { return *at_; }
  TrackedIterator& operator++() {
    *reached_ = ++at_;
    return *this;
  }
  TrackedIterator operator++(int) {
    TrackedIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const TrackedIterator& other) const { return at_ == other.at_; }
  bool operator!=(const TrackedIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** reached_;
};

struct Member {
  std::string key;
  Json value;
};

/// Finds duplicate keys of one object: a linear scan while it is small, an open-addressing table of
/// positions later.
class KeyIndex {
 public:
  /// Whether `key` is new; to be called before the key is appended to `members`.
  bool add(const std::vector<Member>& members, const std::string& key) {
    if (members.size() < kLinearScanKeys) {
      return std::none_of(
          members.begin(), members.end(), [&](const Member& m) { return m.key == key; });
    }
    if (slots_.size() < 2 * (members.size() + 1)) {
      rebuild(members);
    }
    const size_t slot = find(members, key);
    if (slots_[slot] != 0) {
      return false;
    }
    slots_[slot] = members.size() + 1;
    return true;
  }

 private:
  void rebuild(const std::vector<Member>& members) {
    size_t capacity = 32;
    while (capacity < 4 * (members.size() + 1)) {
      capacity *= 2;
    }
    slots_.assign(capacity, 0);
    for (size_t i = 0; i < members.size(); ++i) {
      slots_[find(members, members[i].key)] = i + 1;
    }
  }

  size_t find(const std::vector<Member>& members, const std::string& key) const {
    const size_t mask = slots_.size() - 1;
    size_t slot = std::hash<std::string>{}(key)&mask;
    while (slots_[slot] != 0 && members[slots_[slot] - 1].key != key) {
      slot = (slot + 1) & mask;
    }
    return slot;
  }

  std::vector<size_t> slots_;  // position + 1; 0: empty
};

/// An object or array under construction.
struct Frame {
  bool is_object = false;
  std::vector<Member> members;
  Json::array_t elements;
  KeyIndex keys;
};

/// Containers are collected in own vectors and moved into place when complete: the ordered map
/// would search for each key and, because its keys are const, copy whole values when it grows.
class Builder : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return put(Json(nullptr)); }
  bool boolean(bool value) override { return put(Json(value)); }
  bool number_integer(number_integer_t value) override { return put(Json(value)); }
  bool number_unsigned(number_unsigned_t value) override { return put(Json(value)); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.find_first_of(".eE") == std::string::npos) {
      return fail("an integer does not fit 64 bits", text);
    }
    return put(Json(value));
  }
  bool string(string_t& value) override { return put(Json(std::move(value))); }
  bool binary(binary_t&) override { return fail("binary values are not JSON", {}); }

  bool start_object(size_t) override { return open(true); }
  bool start_array(size_t) override { return open(false); }
  bool key(string_t& name) override {
    Frame& frame = frames_.back();
    if (!frame.keys.add(frame.members, name)) {
      return fail("the key appears twice in one object", "'" + name + "'");
    }
    frame.members.push_back({std::move(name), Json()});
    return true;
  }
  bool end_object() override {
    std::vector<Member> members = std::move(frames_.back().members);
    frames_.pop_back();
    Json value = Json::object();
    auto& object = value.get_ref<Json::object_t&>();
    object.reserve(members.size());
    for (Member& member : members) {
      object.Json::object_t::Container::emplace_back(std::move(member.key),
                                                     std::move(member.value));
    }
    return put(std::move(value));
  }
  bool end_array() override {
    Json value(std::move(frames_.back().elements));
    frames_.pop_back();
    return put(std::move(value));
  }
  bool parse_error(size_t position,
                   const std::string&,
                   const nlohmann::detail::exception& error) override {
    error_offset = position == 0 ? 0 : position - 1;
    // nlohmann writes "[json.exception...] parse error at line 1, column 2: what"; position and
    // name are ours to say.
    const std::string text = error.what();
    const size_t cut = text.find(": ");
    return fail("not valid JSON: " + (cut == std::string::npos ? text : text.substr(cut + 2)), {});
  }

  std::string fault;
  std::string fault_value;
  size_t error_offset = std::string::npos;
  Json root;

 private:
  bool open(bool is_object) {
    if (static_cast<int>(frames_.size()) >= limits_.max_depth) {
      return fail(
          "nested deeper than the limit of " + std::to_string(limits_.max_depth) + " levels", {});
    }
    frames_.emplace_back();
    frames_.back().is_object = is_object;
    return true;
  }
  bool put(Json&& value) {
    if (frames_.empty()) {
      root = std::move(value);
    } else if (frames_.back().is_object) {
      frames_.back().members.back().value = std::move(value);
    } else {
      frames_.back().elements.push_back(std::move(value));
    }
    return true;
  }
  bool fail(std::string text, std::string value) {
    fault = std::move(text);
    fault_value = std::move(value);
    return false;
  }

  const JsonLimits& limits_;
  std::vector<Frame> frames_;
};

bool ends_with_line_number(const std::string& origin) {
  const size_t colon = origin.find_last_not_of("0123456789");
  return colon != std::string::npos && origin[colon] == ':' && colon + 1 < origin.size();
}

/// "origin:line:column", or "file:line:column" when the origin already names the line and the text
/// is one line.
std::string position_text(std::string_view text, size_t offset, const std::string& origin) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t line_start = before.find_last_of('\n') + 1;  // npos + 1 == 0
  const std::string column = std::to_string(before.size() - line_start + 1);
  if (line == 1 && ends_with_line_number(origin)) {
    return origin + ":" + column;
  }
  return origin + ":" + std::to_string(line) + ":" + column;
}

[[noreturn]] void complain(const std::string& place,
                           const std::string& what,
                           const std::string& got) {
  throw Error(ErrorKind::Data, {.where = "core.json", .what = place + ": " + what, .got = got});
}

const Json& member_of(const Json& object,
                      std::string_view key,
                      const std::string& origin,
                      const char* type) {
  const Json* value = json_find(object, key);
  if (value == nullptr) {
    throw Error(ErrorKind::Data,
                {.where = "core.json",
                 .what = origin + ": the key '" + std::string(key) + "' is missing",
                 .allowed = type});
  }
  return *value;
}

[[noreturn]] void wrong_type(const Json& value,
                             std::string_view key,
                             const std::string& origin,
                             const char* type) {
  std::string shown = value.is_structured() ? std::string() : " " + value.dump().substr(0, 80);
  throw Error(ErrorKind::Data,
              {.where = "core.json",
               .what = origin + ": the key '" + std::string(key) + "' has the wrong type",
               .got = value.type_name() + shown,
               .allowed = type});
}

}  // namespace

Json parse_json(std::string_view text, const std::string& origin, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    complain(origin,
             "the text is longer than the limit of " + std::to_string(limits.max_bytes) + " bytes",
             std::to_string(text.size()) + " bytes");
  }
  // nlohmann takes a NUL for the end of the text and would not see what follows.
  if (const void* nul = text.empty() ? nullptr : std::memchr(text.data(), 0, text.size())) {
    const auto offset = static_cast<size_t>(static_cast<const char*>(nul) - text.data());
    complain(position_text(text, offset, origin), "a zero byte is not allowed in JSON", {});
  }
  const char* reached = text.data();
  Builder builder(limits);
  const bool good = Json::sax_parse(TrackedIterator(text.data(), &reached),
                                    TrackedIterator(text.data() + text.size(), &reached),
                                    &builder);
  if (!good) {
    const auto read = static_cast<size_t>(reached - text.data());
    const size_t offset = builder.error_offset != std::string::npos ? builder.error_offset
                                                                    : std::max<size_t>(read, 1) - 1;
    complain(position_text(text, offset, origin), builder.fault, builder.fault_value);
  }
  return std::move(builder.root);
}

int64_t json_int(const Json& object, std::string_view key, const std::string& origin) {
  const Json& value = member_of(object, key, origin, "an integer");
  const bool fits =
      value.is_number_unsigned()
          ? value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
          : value.is_number_integer();
  if (!fits) {
    wrong_type(value, key, origin, "an integer of 64 bits with sign");
  }
  return value.get<int64_t>();
}

double json_number(const Json& object, std::string_view key, const std::string& origin) {
  const Json& value = member_of(object, key, origin, "a number");
  if (!value.is_number()) {
    wrong_type(value, key, origin, "a number");
  }
  return value.get<double>();
}

bool json_bool(const Json& object, std::string_view key, const std::string& origin) {
  const Json& value = member_of(object, key, origin, "true or false");
  if (!value.is_boolean()) {
    wrong_type(value, key, origin, "true or false");
  }
  return value.get<bool>();
}

std::string json_string(const Json& object, std::string_view key, const std::string& origin) {
  const Json& value = member_of(object, key, origin, "a string");
  if (!value.is_string()) {
    wrong_type(value, key, origin, "a string");
  }
  return value.get<std::string>();
}

const Json* json_find(const Json& object, std::string_view key) {
  if (!object.is_object()) {
    return nullptr;
  }
  for (const auto& [name, value] : object.get_ref<const Json::object_t&>()) {
    if (name == key) {
      return value.is_null() ? nullptr : &value;
    }
  }
  return nullptr;
}

}  // namespace kamerton::core
