// SPDX-License-Identifier: Apache-2.0
// Pickle's stack machine with the opcodes that data needs; values are nodes of one list and name
// each other by index, so nothing recurses and nothing is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kamerton::storage {

struct PickleValue {
  enum class Kind : uint8_t { None, Number, Text, Tuple, List, Dict, Global, Storage, Tensor };

  Kind kind = Kind::None;
  int64_t number = 0;
  std::string text = {};             ///< Text; Global: "module.name"
  std::vector<uint32_t> items = {};  ///< Tuple, List; Dict: key, value, key, ...; the arguments of
                                     ///< Storage and Tensor
};

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> pickle, const std::string& origin)
      : bytes_(pickle), origin_(origin) {}

  /// Runs to STOP; the index of the result.
  uint32_t run();
  const PickleValue& at(uint32_t index) const { return values_[index]; }
  [[noreturn]] void refuse(const std::string& what, const std::string& got) const;

 private:
  using Kind = PickleValue::Kind;

  // Each does one opcode, or nothing when it is not of its group (false).
  bool step_number(uint8_t opcode);
  bool step_text(uint8_t opcode);
  bool step_container(uint8_t opcode);
  bool step_memo(uint8_t opcode);
  bool step_object(uint8_t opcode);

  template <class T>
  T number();
  std::string_view take(uint64_t length);
  std::string_view line();
  void push(PickleValue value);
  void push_number(int64_t value) { push({.kind = Kind::Number, .number = value}); }
  uint32_t pop();
  std::vector<uint32_t> pop_to_mark();
  std::vector<uint32_t> pop_last(size_t count);
  PickleValue& top_of(Kind kind, const char* what);
  void push_global(const std::string& name);
  void load_persistent();
  void reduce();
  void build();

  std::span<const std::byte> bytes_;
  const std::string& origin_;
  uint64_t at_ = 0;
  std::vector<PickleValue> values_;
  std::vector<uint32_t> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, uint32_t> memo_;
};

}  // namespace kamerton::storage
