// SPDX-License-Identifier: Apache-2.0
#include "pickle.h"

#include "pickle_machine.h"

namespace kamerton::storage {
namespace {

using Kind = PickleValue::Kind;

constexpr std::pair<std::string_view, DType> kStorages[] = {{"torch.FloatStorage", DType::F32},
                                                            {"torch.HalfStorage", DType::F16},
                                                            {"torch.BFloat16Storage", DType::BF16},
                                                            {"torch.DoubleStorage", DType::F64},
                                                            {"torch.LongStorage", DType::I64},
                                                            {"torch.IntStorage", DType::I32},
                                                            {"torch.ShortStorage", DType::I16},
                                                            {"torch.CharStorage", DType::I8},
                                                            {"torch.ByteStorage", DType::U8},
                                                            {"torch.BoolStorage", DType::Bool}};

class Interpreter {
 public:
  Interpreter(std::span<const std::byte> pickle, const std::string& origin)
      : machine_(pickle, origin) {}

  PickledTensors read() {
    const PickleValue* root = &machine_.at(machine_.run());
    if (root->kind == Kind::Dict) {
      if (const PickleValue* inner = member(*root, "state_dict");
          inner != nullptr && inner->kind == Kind::Dict) {
        root = inner;
      }
    }
    if (root->kind != Kind::Dict) {
      machine_.refuse("the pickle is no dictionary", "another value");
    }
    PickledTensors tensors;
    for (size_t i = 0; i + 1 < root->items.size(); i += 2) {
      const PickleValue& name = value(*root, i);
      const PickleValue& tensor = value(*root, i + 1);
      if (name.kind != Kind::Text || tensor.kind != Kind::Tensor) {
        machine_.refuse("an entry of the dictionary is no tensor", name.text);
      }
      tensors.emplace_back(name.text, tensor_of(name.text, tensor));
    }
    return tensors;
  }

 private:
  const PickleValue& value(const PickleValue& of, size_t item) const {
    return machine_.at(of.items[item]);
  }

  const PickleValue* member(const PickleValue& dict, std::string_view name) const {
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      if (value(dict, i).kind == Kind::Text && value(dict, i).text == name) {
        return &value(dict, i + 1);
      }
    }
    return nullptr;
  }

  int64_t size(const std::string& name, const PickleValue& number) const {
    if (number.kind != Kind::Number || number.number < 0) {
      machine_.refuse("tensor '" + name + "' has a size that is none",
                      std::to_string(number.number));
    }
    return number.number;
  }

  std::vector<int64_t> sizes(const std::string& name, const PickleValue& tuple) const {
    if (tuple.kind != Kind::Tuple || tuple.items.size() > 64) {
      machine_.refuse("tensor '" + name + "' has a shape that is none",
                      std::to_string(tuple.items.size()) + " items");
    }
    std::vector<int64_t> out;
    for (size_t i = 0; i < tuple.items.size(); ++i) {
      out.push_back(size(name, value(tuple, i)));
    }
    return out;
  }

  /// ('storage', type, key, place, elements)
  void read_storage(const std::string& name, const PickleValue& storage, PickledTensor& out) const {
    if (storage.kind != Kind::Storage || storage.items.size() != 5 ||
        value(storage, 0).text != "storage" || value(storage, 1).kind != Kind::Global ||
        value(storage, 2).kind != Kind::Text) {
      machine_.refuse("tensor '" + name + "' has no storage that is understood", "");
    }
    for (const auto& [type, dtype] : kStorages) {
      if (value(storage, 1).text == type) {
        out.dtype = dtype;
        out.storage_key = value(storage, 2).text;
        out.storage_elements = size(name, value(storage, 4));
        return;
      }
    }
    machine_.refuse("tensor '" + name + "' has a storage of no known type", value(storage, 1).text);
  }

  /// (storage, offset, size, stride, requires_grad, hooks, ...)
  PickledTensor tensor_of(const std::string& name, const PickleValue& tensor) const {
    PickledTensor out;
    read_storage(name, value(tensor, 0), out);
    out.first_element = size(name, value(tensor, 1));
    out.shape = sizes(name, value(tensor, 2));
    out.strides = sizes(name, value(tensor, 3));
    return out;
  }

  PickleMachine machine_;
};

}  // namespace

PickledTensors read_pickle(std::span<const std::byte> pickle, const std::string& origin) {
  return Interpreter(pickle, origin).read();
}

}  // namespace kamerton::storage
