// SPDX-License-Identifier: Apache-2.0
// The header of a safetensors file. Rule numbers are those of README.md in this folder.
#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/storage/safetensors.h"

namespace kamerton::storage {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;                // rule 2, the reference's own cap
constexpr uint64_t kMaxDim = (uint64_t{1} << 48) - 1;       // rule 15, the format's JSON schema
constexpr size_t kMaxRank = 64;                             // ours
constexpr size_t kSafetensorsHeaderMaxTensors = 1'000'000;  // ours
constexpr size_t kSafetensorsHeaderMaxNameBytes = 4096;     // ours

struct Rejection {
  std::string rule;
  std::string what;
  std::string tensor = {};
  std::string got = {};
  std::string allowed = {};
  std::string hint = {};
};

[[noreturn]] void reject(const std::string& origin, const Rejection& why) {
  std::string what = "'" + origin + "' breaks " + why.rule + " of safetensors: " + why.what;
  if (!why.tensor.empty()) {
    what += " (tensor '" + why.tensor + "')";
  }
  throw core::Error(core::ErrorKind::Data,
                    {.where = "storage.safetensors",
                     .what = what,
                     .got = why.got,
                     .allowed = why.allowed,
                     .hint = why.hint});
}

/// Types of the format that no part of this program can compute with.
bool is_known_but_unused(std::string_view name) {
  constexpr std::string_view kNames[] = {"F4",
                                         "F6_E2M3",
                                         "F6_E3M2",
                                         "F8_E5M2",
                                         "F8_E4M3",
                                         "F8_E8M0",
                                         "U16",
                                         "U32",
                                         "F8_E4M3FNUZ",
                                         "F8_E5M2FNUZ",
                                         "U64",
                                         "C64"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

/// One tensor while its object is being read.
struct Draft {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;
  std::optional<std::vector<uint64_t>> offsets;
};

/// Receives nlohmann's parser events; accepts exactly the header's grammar, so nesting is bounded
/// and nothing but the entries is stored.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderReader(const std::string& origin) : origin_(origin) {}

  bool null() override { return wrong_value("null"); }
  bool boolean(bool) override { return wrong_value("a boolean"); }
  bool number_integer(number_integer_t) override { return wrong_value("a negative number"); }
  bool number_float(number_float_t, const string_t& text) override { return wrong_value(text); }
  bool binary(binary_t&) override { return wrong_value("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ != State::Numbers) {
      return wrong_value("a number");
    }
    const bool is_shape = field_ == "shape";
    auto& list = is_shape ? *draft_.shape : *draft_.offsets;
    if (list.size() >= (is_shape ? kMaxRank : 2)) {
      reject(origin_,
             {.rule = is_shape ? "our limit" : "rule 10",
              .what = is_shape ? "too many dimensions" : "data_offsets is not a pair",
              .tensor = draft_.name,
              .got = "",
              .allowed = is_shape ? "at most " + std::to_string(kMaxRank) : "[begin, end]"});
    }
    list.push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == State::Metadata) {
      metadata.emplace_back(field_, value);
    } else if (state_ == State::Tensor && field_ == "dtype") {
      draft_.dtype = value;
    } else {
      return wrong_value("a string");
    }
    return true;
  }

  bool start_object(size_t) override {
    if (state_ == State::Start) {
      state_ = State::Top;
    } else if (state_ == State::Top) {
      state_ = in_metadata_ ? State::Metadata : State::Tensor;
    } else {
      return wrong_value("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    if (state_ == State::Top) {
      open_entry(name);
    } else if (state_ == State::Metadata) {
      if (!metadata_keys_.insert(name).second) {
        reject(origin_,
               {.rule = "rule 13",
                .what = "a key of __metadata__ occurs twice",
                .got = "'" + name + "'"});
      }
      field_ = name;
    } else {
      open_field(name);
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::Tensor) {
      close_tensor();
    }
    state_ = state_ == State::Top ? State::Done : State::Top;
    return true;
  }

  bool start_array(size_t) override {
    if (state_ != State::Tensor || field_ == "dtype") {
      return wrong_value("an array");
    }
    (field_ == "shape" ? draft_.shape : draft_.offsets).emplace();
    state_ = State::Numbers;
    return true;
  }

  bool end_array() override {
    state_ = State::Tensor;
    return true;
  }

  bool parse_error(size_t position,
                   const std::string&,
                   const nlohmann::detail::exception& error) override {
    const bool encoding = std::strstr(error.what(), "UTF-8") != nullptr;
    reject(origin_,
           {.rule = encoding ? "rule 3" : "rule 4",
            .what = encoding ? "the header is not UTF-8" : "the header is not a JSON object",
            .tensor = "",
            .got = "an error at byte " + std::to_string(8 + position),
            .allowed = "",
            .hint = "fetching the file again"});
  }

  std::vector<TensorEntry> entries;  ///< offsets relative to the data
  TextPairs metadata;

 private:
  enum class State { Start, Top, Metadata, Tensor, Numbers, Done };

  bool wrong_value(const std::string& got) {
    const bool in_tensor = state_ == State::Tensor || state_ == State::Numbers;
    const std::string place = state_ == State::Start ? "the header" : "'" + field_ + "'";
    std::string rule = in_metadata_ ? "rule 5" : "rule 6";
    std::string allowed = in_metadata_ ? "text" : "an object with dtype, shape and data_offsets";
    if (state_ == State::Start) {
      rule = "rule 4";
      allowed = "a JSON object";
    } else if (in_tensor) {
      rule = field_ == "dtype" ? "rule 7" : field_ == "shape" ? "rule 8" : "rule 10";
      allowed = field_ == "dtype" ? "the name of a type" : "a list of non-negative integers";
    }
    reject(origin_,
           {.rule = rule,
            .what = "wrong kind of value for " + place,
            .tensor = in_tensor ? draft_.name : "",
            .got = got,
            .allowed = allowed});
  }

  void open_entry(const std::string& name) {
    field_ = name;
    in_metadata_ = name == "__metadata__";
    if (!names_.insert(name).second) {
      reject(origin_, {.rule = "rule 13", .what = "a name occurs twice", .got = "'" + name + "'"});
    }
    if (in_metadata_) {
      return;
    }
    const bool printable = std::all_of(name.begin(), name.end(), [](char c) {
      return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f;
    });
    if (name.empty() || name.size() > kSafetensorsHeaderMaxNameBytes || !printable) {
      reject(origin_,
             {.rule = "our limit",
              .what = "a tensor's name is empty, too long or has control characters",
              .tensor = "",
              .got = std::to_string(name.size()) + " bytes",
              .allowed =
                  "1 to " + std::to_string(kSafetensorsHeaderMaxNameBytes) + " printable bytes"});
    }
    if (entries.size() >= kSafetensorsHeaderMaxTensors) {
      reject(origin_,
             {.rule = "our limit",
              .what = "too many tensors",
              .allowed = std::to_string(kSafetensorsHeaderMaxTensors)});
    }
    draft_ = {.name = name, .dtype = {}, .shape = {}, .offsets = {}};
  }

  void open_field(const std::string& name) {
    const bool known = name == "dtype" || name == "shape" || name == "data_offsets";
    const bool again = known && (name == "dtype"   ? draft_.dtype.has_value()
                                 : name == "shape" ? draft_.shape.has_value()
                                                   : draft_.offsets.has_value());
    if (!known || again) {
      reject(origin_,
             {.rule = again ? "rule 13" : "rule 6",
              .what = again ? "a field occurs twice" : "a field that does not belong there",
              .tensor = draft_.name,
              .got = "'" + name + "'",
              .allowed = "dtype, shape, data_offsets, once each"});
    }
    field_ = name;
  }

  void close_tensor() {
    if (!draft_.dtype || !draft_.shape || !draft_.offsets || draft_.offsets->size() != 2) {
      reject(origin_,
             {.rule = "rule 6",
              .what = "a field is missing or not complete",
              .tensor = draft_.name,
              .got = "",
              .allowed = "dtype, shape and data_offsets [begin, end]"});
    }
    TensorEntry entry;
    entry.name = std::move(draft_.name);
    const auto dtype = dtype_from_name(*draft_.dtype);
    if (!dtype) {
      const bool legal = is_known_but_unused(*draft_.dtype);
      reject(origin_,
             {.rule = "rule 7",
              .what = legal ? "a type that this program does not use" : "an unknown type",
              .tensor = entry.name,
              .got = draft_.dtype->substr(0, 64),
              .allowed = "F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL"});
    }
    entry.dtype = *dtype;
    for (const uint64_t dim : *draft_.shape) {
      if (dim > kMaxDim) {
        reject(origin_,
               {.rule = "rule 15",
                .what = "a dimension is too large",
                .tensor = entry.name,
                .got = std::to_string(dim),
                .allowed = std::to_string(kMaxDim)});
      }
      entry.shape.push_back(static_cast<int64_t>(dim));
    }
    measure(entry);
    entries.push_back(std::move(entry));
  }

  /// Sizes and offsets of one tensor (rules 8 to 11).
  void measure(TensorEntry& entry) const {
    const auto num_elements = checked_num_elements(entry.shape);
    uint64_t size = 0;
    if (!num_elements ||
        __builtin_mul_overflow(static_cast<uint64_t>(*num_elements), size_of(entry.dtype), &size)) {
      reject(origin_,
             {.rule = "rule 8", .what = "the size of the shape overflows", .tensor = entry.name});
    }
    const uint64_t begin = draft_.offsets->at(0);
    const uint64_t end = draft_.offsets->at(1);
    if (begin > end) {
      reject(origin_,
             {.rule = "rule 10",
              .what = "data_offsets end before they begin",
              .tensor = entry.name,
              .got = std::to_string(begin) + ", " + std::to_string(end)});
    }
    if (end - begin != size) {
      reject(origin_,
             {.rule = "rule 11",
              .what = "data_offsets do not fit shape and dtype",
              .tensor = entry.name,
              .got = std::to_string(end - begin) + " bytes",
              .allowed = std::to_string(size) + " bytes"});
    }
    entry.num_elements = *num_elements;
    entry.offset = begin;
    entry.size = size;
  }

  const std::string& origin_;
  State state_ = State::Start;
  bool in_metadata_ = false;
  std::string field_;
  Draft draft_;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> metadata_keys_;
};

/// Rules 1 and 2: the length of the header.
uint64_t header_length(std::span<const std::byte> head,
                       uint64_t file_size,
                       const std::string& origin) {
  constexpr std::string_view kPointer = "version https://git-lfs";
  if (head.size() >= kPointer.size() &&
      std::memcmp(head.data(), kPointer.data(), kPointer.size()) == 0) {
    reject(origin,
           {.rule = "rule 2",
            .what = "it is a git-LFS pointer, not the tensors",
            .tensor = "",
            .got = std::to_string(file_size) + " bytes of text",
            .allowed = "",
            .hint = "git lfs pull"});
  }
  if (file_size < 8 || head.size() < 8) {
    reject(origin,
           {.rule = "rule 1",
            .what = "the file is too short",
            .tensor = "",
            .got = std::to_string(file_size) + " bytes",
            .allowed = "at least 8 bytes",
            .hint = "fetching the file again"});
  }
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) {
    length |= std::to_integer<uint64_t>(head[i]) << (8 * i);
  }
  if (length > kMaxHeader) {
    reject(origin,
           {.rule = "rule 2",
            .what = "the header's length is beyond the limit",
            .tensor = "",
            .got = std::to_string(length),
            .allowed = "at most " + std::to_string(kMaxHeader),
            .hint = "checking that this is a safetensors file"});
  }
  if (length > file_size - 8 || length > head.size() - 8) {
    reject(origin,
           {.rule = "rule 2",
            .what = "the header is longer than the file",
            .tensor = "",
            .got = std::to_string(file_size) + " bytes in the file",
            .allowed = std::to_string(8 + length) + " bytes or more",
            .hint = "fetching the file again: it is cut short"});
  }
  return length;
}

}  // namespace

SafetensorsHeader parse_safetensors(std::span<const std::byte> head,
                                    uint64_t file_size,
                                    const std::string& origin) {
  const uint64_t length = header_length(head, file_size, origin);
  HeaderReader reader(origin);
  const auto* text = reinterpret_cast<const char*>(head.data()) + 8;
  if (length == 0 || *text == '\xef') {  // the parser would skip a byte-order mark
    reject(origin, {.rule = "rule 4", .what = "the header does not begin with '{'"});
  }
  // The parser takes a zero byte for the end and would not look at what follows.
  if (std::memchr(text, 0, length) != nullptr) {
    reject(origin, {.rule = "rule 4", .what = "the header has a zero byte"});
  }
  nlohmann::json::sax_parse(text, text + length, &reader);

  auto& entries = reader.entries;
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::pair(a.offset, a.offset + a.size) < std::pair(b.offset, b.offset + b.size);
  });
  uint64_t end = 0;
  for (auto& entry : entries) {
    if (entry.offset != end) {
      reject(origin,
             {.rule = "rule 10",
              .what = entry.offset < end ? "tensors overlap" : "a hole between tensors",
              .tensor = entry.name,
              .got = "begin " + std::to_string(entry.offset),
              .allowed = "begin " + std::to_string(end)});
    }
    end += entry.size;
    entry.offset += 8 + length;
  }
  const uint64_t expected = 8 + length + end;
  if (expected != file_size) {
    reject(origin,
           {.rule = "rule 12",
            .what = expected > file_size ? "the file is cut short"
                                         : "the file has bytes after the last tensor",
            .tensor = entries.empty() ? "" : entries.back().name,
            .got = std::to_string(file_size) + " bytes",
            .allowed = "exactly " + std::to_string(expected) + " bytes",
            .hint = "fetching the file again"});
  }
  return {std::move(entries), std::move(reader.metadata)};
}

}  // namespace kamerton::storage
