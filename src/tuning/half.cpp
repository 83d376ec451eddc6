// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/half.h"

#include <algorithm>
#include <map>
#include <numeric>

#include <fmt/format.h>

#include "kamerton/core/random.h"

namespace kamerton::tuning {
namespace {

/// "self_attn.q_proj.weight" -> "self_attn.q_proj"
std::string module_of(const std::string& parameter) {
  const size_t dot = parameter.rfind('.');
  return dot == std::string::npos ? parameter : parameter.substr(0, dot);
}

/// "self_attn.q_proj" -> "self_attn"; a module directly in the layer: ""
std::string part_of(const std::string& module) {
  const size_t dot = module.rfind('.');
  return dot == std::string::npos ? "" : module.substr(0, dot);
}

/// The first `count` of a random order of [0, size).
std::vector<size_t> choose(size_t count, size_t size, const core::RandomStream& random) {
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = 0; i < count; ++i) {
    std::swap(order[i], order[i + random.below(i, size - i)]);
  }
  order.resize(count);
  return order;
}

/// Modules of a layer in their order, each with its parameters that may be trained.
struct Module {
  std::string name;
  bool is_norm = true;  ///< nothing in it has two dimensions
  std::vector<const tensor::Parameter*> parameters;
};

std::vector<Module> modules_of(const tensor::ParamUnit& unit, const std::string& prefix) {
  std::vector<Module> modules;
  for (const tensor::ParameterPtr& parameter : unit.parameters) {
    if (!parameter->trainable || !parameter->name.starts_with(prefix)) {
      continue;
    }
    const std::string name = module_of(parameter->name.substr(prefix.size()));
    auto found = std::find_if(modules.begin(), modules.end(), [&name](const Module& module) {
      return module.name == name;
    });
    if (found == modules.end()) {
      found = modules.insert(modules.end(), Module{name, true, {}});
    }
    found->is_norm = found->is_norm && parameter->shape.size() < 2;
    found->parameters.push_back(parameter.get());
  }
  return modules;
}

}  // namespace

HalfDraws::HalfDraws(const model::Decoder& decoder, const HalfConfig& config, uint64_t seed)
    : seed_(seed) {
  by_category(decoder);
  const auto layers = static_cast<size_t>(decoder.config().layers);
  if (config.level == "layer") {
    Category whole{"layer", {std::vector<Member>(layers)}};
    for (const Category& part : categories_) {
      for (size_t layer = 0; layer < layers; ++layer) {
        for (const Member& member : part.layers[layer]) {
          Member& all = whole.layers[0][layer];
          all.insert(all.end(), member.begin(), member.end());
        }
      }
    }
    categories_ = {std::move(whole)};
  } else if (config.level == "model") {
    Category matrices{"matrices", {{}}};
    Category norms{"norms", {{}}};
    for (const Category& part : categories_) {
      std::vector<Member>& pool = (part.name == "norm" ? norms : matrices).layers[0];
      for (const std::vector<Member>& layer : part.layers) {
        pool.insert(pool.end(), layer.begin(), layer.end());
      }
    }
    categories_ = {std::move(matrices), std::move(norms)};
  }
}

void HalfDraws::by_category(const model::Decoder& decoder) {
  const auto layers = static_cast<size_t>(decoder.config().layers);
  for (const tensor::ParamUnit& unit : decoder.units()) {
    const size_t layer = static_cast<size_t>(unit.index) - 1;  // the embedding is unit 0
    const bool is_layer = unit.index >= 1 && layer < layers;
    const std::string prefix = fmt::format("{}.{}.", decoder.config().names.layers, layer);
    for (const tensor::ParameterPtr& parameter : unit.parameters) {
      if (parameter->trainable && !(is_layer && parameter->name.starts_with(prefix))) {
        always_.push_back(parameter.get());
      }
    }
    if (!is_layer) {
      continue;
    }
    for (Module& module : modules_of(unit, prefix)) {
      Category& found = category(module.is_norm ? "norm" : "part " + part_of(module.name));
      found.layers.resize(layers);
      found.layers[layer].push_back(std::move(module.parameters));
    }
  }
}

HalfDraws::Category& HalfDraws::category(const std::string& name) {
  for (Category& one : categories_) {
    if (one.name == name) {
      return one;
    }
  }
  return categories_.emplace_back(Category{name, {}});
}

void HalfDraws::draw_category(const Category& category, int64_t number, Set& drawn) const {
  // Layers by how many members they have: among those with an odd number, half gets one more.
  std::map<size_t, std::vector<size_t>> by_size;
  for (size_t layer = 0; layer < category.layers.size(); ++layer) {
    by_size[category.layers[layer].size()].push_back(layer);
  }
  const auto draw_number = static_cast<uint64_t>(number);
  for (const auto& [size, layers] : by_size) {
    std::vector<size_t> counts(layers.size(), size / 2);
    if (size % 2 == 1) {
      const core::RandomStream random(seed_, "half.more:" + category.name, draw_number, size);
      for (const size_t lucky : choose((layers.size() + 1) / 2, layers.size(), random)) {
        ++counts[lucky];
      }
    }
    for (size_t i = 0; i < layers.size(); ++i) {
      const core::RandomStream random(seed_, "half:" + category.name, draw_number, layers[i]);
      for (const size_t index : choose(counts[i], size, random)) {
        const Member& member = category.layers[layers[i]][index];
        drawn.insert(member.begin(), member.end());
      }
    }
  }
}

HalfDraws::Set HalfDraws::draw(int64_t number) const {
  Set drawn(always_.begin(), always_.end());
  for (const Category& category : categories_) {
    draw_category(category, number, drawn);
  }
  return drawn;
}

void apply(const HalfDraws::Set& draw, model::Decoder& decoder) {
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    parameter->trainable = draw.contains(parameter.get());
  }
}

}  // namespace kamerton::tuning
