// SPDX-License-Identifier: Apache-2.0
#include "treatments.h"

#include <algorithm>
#include <cmath>

#include "kamerton/core/error.h"
#include "kamerton/optim/parameter_groups.h"

namespace kamerton::optim {

namespace {

std::regex compile(const std::string& expression) {
  try {
    return std::regex(expression);
  } catch (const std::regex_error& error) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "optim.groups",
                       .what = "not a regular expression",
                       .got = "'" + expression + "'",
                       .allowed = "ECMAScript syntax",
                       .hint = error.what()});
  }
}

/// A few names, the ones that share most of their beginning with the expression first.
std::string nearest_names(const std::string& expression,
                          const std::vector<tensor::ParamUnit>& units) {
  std::vector<std::string> names;
  for (const tensor::ParamUnit& unit : units) {
    for (const auto& parameter : unit.parameters) {
      names.push_back(parameter->name);
    }
  }
  const auto shared = [&expression](const std::string& name) {
    const auto end = std::mismatch(
        name.begin(), name.end(), expression.begin(), expression.end(), std::equal_to<>());
    return end.first - name.begin();
  };
  const size_t shown = std::min<size_t>(3, names.size());
  std::partial_sort(names.begin(),
                    names.begin() + static_cast<std::ptrdiff_t>(shown),
                    names.end(),
                    [&](const std::string& a, const std::string& b) {
                      return shared(a) != shared(b) ? shared(a) > shared(b) : a < b;
                    });
  std::string text;
  for (size_t i = 0; i < shown; ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return text;
}

bool matches_any(const std::regex& pattern, const std::vector<tensor::ParamUnit>& units) {
  return std::any_of(units.begin(), units.end(), [&](const tensor::ParamUnit& unit) {
    return std::any_of(unit.parameters.begin(), unit.parameters.end(), [&](const auto& parameter) {
      return std::regex_match(parameter->name, pattern);
    });
  });
}

}  // namespace

Treatments::Treatments(const OptimConfig& config, const std::vector<tensor::ParamUnit>& units)
    : config_(config) {
  const bool trained = std::any_of(units.begin(), units.end(), [](const tensor::ParamUnit& unit) {
    return unit.numel(true) > 0;
  });
  for (const ParameterGroup& group : config.groups) {
    groups_.push_back({compile(group.match), &group});
    if (trained && !matches_any(groups_.back().pattern, units)) {
      throw core::Error(core::ErrorKind::Config,
                        {.where = "optim.groups",
                         .what = "the expression matches no parameter",
                         .got = "'" + group.match + "'",
                         .allowed = "a regular expression for whole names",
                         .hint = "names are such as " + nearest_names(group.match, units)});
    }
  }
  for (const ParameterGroup& group : config.method_groups) {
    method_groups_.push_back({compile(group.match), &group});
  }
  const bool own_head = !units.empty() && units.back().name == "head";
  head_ = static_cast<int>(units.size()) - (own_head ? 1 : 0);
}

Treatment Treatments::of(const tensor::ParamUnit& unit, const tensor::Parameter& parameter) const {
  Treatment treatment;
  if (config_.decay_1d || parameter.shape.size() >= 2) {
    treatment.weight_decay = config_.weight_decay;
  }
  if (config_.layer_decay != 1.0) {
    treatment.lr_ratio = std::pow(config_.layer_decay, head_ - unit.index);
  }
  for (const Group& group : method_groups_) {
    if (std::regex_match(parameter.name, group.pattern)) {
      treatment.lr_ratio *= group.config->lr_ratio;
    }
  }
  for (auto group = groups_.rbegin(); group != groups_.rend(); ++group) {
    if (std::regex_match(parameter.name, group->pattern)) {
      treatment.lr_ratio *= group->config->lr_ratio;
      treatment.weight_decay = group->config->weight_decay.value_or(treatment.weight_decay);
      break;
    }
  }
  return treatment;
}

void check_groups(const OptimConfig& config, const std::vector<tensor::ParamUnit>& units) {
  Treatments(config, units);
}

}  // namespace kamerton::optim
