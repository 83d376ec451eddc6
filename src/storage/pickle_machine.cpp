// SPDX-License-Identifier: Apache-2.0
#include "pickle_machine.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "kamerton/core/error.h"

namespace kamerton::storage {
namespace {

constexpr std::string_view kAllowed[] = {"collections.OrderedDict",
                                         "torch._utils._rebuild_tensor_v2",
                                         "torch._utils._rebuild_parameter",
                                         "torch.FloatStorage",
                                         "torch.HalfStorage",
                                         "torch.BFloat16Storage",
                                         "torch.DoubleStorage",
                                         "torch.LongStorage",
                                         "torch.IntStorage",
                                         "torch.ShortStorage",
                                         "torch.CharStorage",
                                         "torch.ByteStorage",
                                         "torch.BoolStorage"};

/// More than any call has; the list is copied, and a pickle may name the same one again and again.
constexpr size_t kMaxArguments = 16;

std::string hex(uint8_t opcode) {
  char text[8];
  std::snprintf(text, sizeof(text), "0x%02x", opcode);
  return text;
}

}  // namespace

void PickleMachine::refuse(const std::string& what, const std::string& got) const {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "storage.pickle",
                     .what = "'" + origin_ + "': " + what,
                     .got = got.substr(0, 200),
                     .allowed = "a dictionary of tensors, as torch.save(model.state_dict()) writes",
                     .hint = "safetensors"});
}

template <class T>
T PickleMachine::number() {
  T value;
  std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
  return value;
}

std::string_view PickleMachine::take(uint64_t length) {
  if (length > bytes_.size() - at_) {
    refuse("the pickle ends within a value", "byte " + std::to_string(at_));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + at_, length);
  at_ += length;
  return text;
}

std::string_view PickleMachine::line() {
  const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_,
                              bytes_.size() - at_);
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) {
    refuse("the pickle ends within a name", "byte " + std::to_string(at_));
  }
  at_ += end + 1;
  return rest.substr(0, end);
}

void PickleMachine::push(PickleValue value) {
  stack_.push_back(static_cast<uint32_t>(values_.size()));
  values_.push_back(std::move(value));
}

uint32_t PickleMachine::pop() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) {
    refuse("the pickle takes a value that is not there", "byte " + std::to_string(at_));
  }
  const uint32_t top = stack_.back();
  stack_.pop_back();
  return top;
}

std::vector<uint32_t> PickleMachine::pop_last(size_t count) {
  if (stack_.size() - (marks_.empty() ? 0 : marks_.back()) < count) {
    refuse("the pickle takes values that are not there", "byte " + std::to_string(at_));
  }
  const auto from = stack_.end() - static_cast<ptrdiff_t>(count);
  std::vector<uint32_t> items(from, stack_.end());
  stack_.erase(from, stack_.end());
  return items;
}

std::vector<uint32_t> PickleMachine::pop_to_mark() {
  if (marks_.empty()) {
    refuse("the pickle ends a group that did not begin", "byte " + std::to_string(at_));
  }
  auto items = pop_last(stack_.size() - marks_.back());
  marks_.pop_back();
  return items;
}

PickleValue& PickleMachine::top_of(Kind kind, const char* what) {
  const uint32_t top = pop();
  stack_.push_back(top);
  if (values_[top].kind != kind) {
    refuse(std::string("the pickle adds to something that is no ") + what,
           "byte " + std::to_string(at_));
  }
  return values_[top];
}

uint32_t PickleMachine::run() {
  while (true) {
    const auto opcode = number<uint8_t>();
    if (opcode == '.') {
      const uint32_t result = pop();
      if (!stack_.empty() || !marks_.empty()) {
        refuse("the pickle ends with values left over", std::to_string(stack_.size()));
      }
      return result;
    }
    if (!step_number(opcode) && !step_text(opcode) && !step_container(opcode) &&
        !step_memo(opcode) && !step_object(opcode)) {
      refuse("the pickle holds an opcode that is not read", hex(opcode));
    }
  }
}

bool PickleMachine::step_number(uint8_t opcode) {
  switch (opcode) {
    case 0x80:  // PROTO
      if (const auto version = number<uint8_t>(); version < 2 || version > 5) {
        refuse("a pickle of this protocol is not read", std::to_string(version));
      }
      return true;
    case 0x95:  // FRAME
      number<uint64_t>();
      return true;
    case 'N':
      push({});
      return true;
    case 0x88:  // NEWTRUE
    case 0x89:  // NEWFALSE
      push_number(opcode == 0x88 ? 1 : 0);
      return true;
    case 'J':
      push_number(number<int32_t>());
      return true;
    case 'K':
      push_number(number<uint8_t>());
      return true;
    case 'M':
      push_number(number<uint16_t>());
      return true;
    case 'G':
      number<uint64_t>();
      push({});
      return true;
    case 0x8a: {  // LONG1: little-endian, two's complement
      const std::string_view digits = take(number<uint8_t>());
      if (digits.size() > 8) {
        refuse("the pickle holds an integer beyond 64 bits", std::to_string(digits.size()));
      }
      const bool negative = !digits.empty() && (digits.back() & 0x80) != 0;
      int64_t value = negative ? -1 : 0;
      std::memcpy(&value, digits.data(), digits.size());
      push_number(value);
      return true;
    }
    default:
      return false;
  }
}

bool PickleMachine::step_text(uint8_t opcode) {
  uint64_t length = 0;
  switch (opcode) {
    case 'X':
      length = number<uint32_t>();
      break;
    case 0x8c:  // SHORT_BINUNICODE
      length = number<uint8_t>();
      break;
    default:
      return false;
  }
  push({.kind = Kind::Text, .text = std::string(take(length))});
  return true;
}

bool PickleMachine::step_container(uint8_t opcode) {
  switch (opcode) {
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case ')':
      push({.kind = Kind::Tuple});
      return true;
    case 't':
      push({.kind = Kind::Tuple, .items = pop_to_mark()});
      return true;
    case 0x85:  // TUPLE1, TUPLE2, TUPLE3
    case 0x86:
    case 0x87:
      push({.kind = Kind::Tuple, .items = pop_last(opcode - 0x84U)});
      return true;
    case ']':
      push({.kind = Kind::List});
      return true;
    case '}':
      push({.kind = Kind::Dict});
      return true;
    case 'a':
    case 'e': {
      const auto items = opcode == 'a' ? pop_last(1) : pop_to_mark();
      auto& list = top_of(Kind::List, "list").items;
      list.insert(list.end(), items.begin(), items.end());
      return true;
    }
    case 's':
    case 'u': {
      const auto items = opcode == 's' ? pop_last(2) : pop_to_mark();
      auto& dict = top_of(Kind::Dict, "dictionary").items;
      if (items.size() % 2 != 0) {
        refuse("the pickle gives a key without a value", "byte " + std::to_string(at_));
      }
      dict.insert(dict.end(), items.begin(), items.end());
      return true;
    }
    default:
      return false;
  }
}

bool PickleMachine::step_memo(uint8_t opcode) {
  const auto remember = [&](uint32_t slot) {
    const uint32_t top = pop();
    stack_.push_back(top);
    memo_[slot] = top;
  };
  const auto recall = [&](uint32_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) {
      refuse("the pickle recalls what it did not remember", std::to_string(slot));
    }
    stack_.push_back(found->second);
  };
  switch (opcode) {
    case 'q':
      remember(number<uint8_t>());
      return true;
    case 'r':
      remember(number<uint32_t>());
      return true;
    case 0x94:  // MEMOIZE
      remember(static_cast<uint32_t>(memo_.size()));
      return true;
    case 'h':
      recall(number<uint8_t>());
      return true;
    case 'j':
      recall(number<uint32_t>());
      return true;
    default:
      return false;
  }
}

bool PickleMachine::step_object(uint8_t opcode) {
  switch (opcode) {
    case 'c': {
      const std::string module(line());
      push_global(module + "." + std::string(line()));
      return true;
    }
    case 0x93: {  // STACK_GLOBAL
      const auto names = pop_last(2);
      if (values_[names[0]].kind != Kind::Text || values_[names[1]].kind != Kind::Text) {
        refuse("the pickle names a global by something that is no text", hex(opcode));
      }
      push_global(values_[names[0]].text + "." + values_[names[1]].text);
      return true;
    }
    case 'Q':
      load_persistent();
      return true;
    case 'R':
      reduce();
      return true;
    case 'b':
      build();
      return true;
    default:
      return false;
  }
}

void PickleMachine::push_global(const std::string& name) {
  if (std::find(std::begin(kAllowed), std::end(kAllowed), name) == std::end(kAllowed)) {
    refuse("the pickle asks for a global that is not allowed; nothing was executed", name);
  }
  push({.kind = Kind::Global, .text = name});
}

void PickleMachine::load_persistent() {
  const uint32_t id = pop();
  if (values_[id].kind != Kind::Tuple || values_[id].items.size() > kMaxArguments) {
    refuse("the pickle refers to something that is no storage", "byte " + std::to_string(at_));
  }
  push({.kind = Kind::Storage, .items = values_[id].items});
}

/// A call; what is called is one of our globals, and nothing but its meaning for tensors happens.
void PickleMachine::reduce() {
  const uint32_t arguments = pop();
  const uint32_t callee = pop();
  if (values_[callee].kind != Kind::Global || values_[arguments].kind != Kind::Tuple ||
      values_[arguments].items.size() > kMaxArguments) {
    refuse("the pickle calls something that is no function", "byte " + std::to_string(at_));
  }
  const std::string& name = values_[callee].text;
  const std::vector<uint32_t> items = values_[arguments].items;
  if (name == "collections.OrderedDict" && items.empty()) {
    push({.kind = Kind::Dict});
  } else if (name == "torch._utils._rebuild_tensor_v2" && items.size() >= 6) {
    push({.kind = Kind::Tensor, .items = items});
  } else if (name == "torch._utils._rebuild_parameter" && !items.empty() &&
             values_[items[0]].kind == Kind::Tensor) {
    stack_.push_back(items[0]);
  } else {
    refuse("the pickle calls a function with arguments that are not understood", name);
  }
}

/// Attributes of a dictionary (state_dict's _metadata) mean nothing to us.
void PickleMachine::build() {
  pop();
  top_of(Kind::Dict, "dictionary");
}

}  // namespace kamerton::storage
