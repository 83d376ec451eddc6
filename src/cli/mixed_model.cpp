// SPDX-License-Identifier: Apache-2.0
#include "mixed_model.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/tuning/peft_format.h"

namespace kamerton::cli {
namespace {

using core::Error;
using core::ErrorKind;

/// NAME=DIR of --mix, in order.
std::vector<std::pair<std::string, std::string>> named_adapters(
    const po::variables_map& arguments) {
  std::vector<std::pair<std::string, std::string>> named;
  for (const std::string& text : value_or<std::vector<std::string>>(arguments, "mix", {})) {
    const size_t at = text.find('=');
    if (at == std::string::npos || at == 0) {
      throw Error(ErrorKind::Config,
                  {.where = "cli.mix",
                   .what = "--mix gives an adapter a name",
                   .got = text,
                   .allowed = "NAME=DIR"});
    }
    const std::string name = text.substr(0, at);
    if (std::any_of(
            named.begin(), named.end(), [&](const auto& other) { return other.first == name; })) {
      throw Error(
          ErrorKind::Config,
          {.where = "cli.mix", .what = "--mix gives a name twice", .got = name, .allowed = "once"});
    }
    named.emplace_back(name, text.substr(at + 1));
  }
  return named;
}

void read_adapter(tuning::PeftAdapter& file, const tuning::Adapter& adapter) {
  file.bind(adapter);
  const at::NoGradGuard no_grad;
  for (const tuning::AdapterEntry& entry : adapter.entries()) {
    file.read(*entry.parameter, 0, entry.parameter->value.detach().view({-1}));
  }
}

}  // namespace

MixedModel::MixedModel(const po::variables_map& arguments, const std::string& model_dir) {
  model::ModelOptions options;
  options.path = model_dir;
  options.dtype = arguments["dtype"].as<std::string>();
  options.device = arguments["device"].as<std::string>();
  decoder_ = std::make_unique<model::Decoder>(model::read_config(model_dir), options);
  mix_ = std::make_unique<tuning::AdapterMix>(*decoder_);
  std::vector<tuning::PeftAdapter> files;
  for (const auto& [name, folder] : named_adapters(arguments)) {
    names_.push_back(name);
    files.push_back(tuning::PeftAdapter::open(folder));
    mix_->add(files.back().spec());
  }
  decoder_->load_whole();
  for (size_t i = 0; i < files.size(); ++i) {
    read_adapter(files[i], (*mix_)[static_cast<int64_t>(i)]);
  }
}

int64_t MixedModel::number_of(const core::Json& record, const std::string& origin) const {
  if (core::json_find(record, "adapter") == nullptr) {
    return tuning::AdapterMix::kBase;
  }
  const std::string name = core::json_string(record, "adapter", origin);
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found == names_.end()) {
    throw Error(ErrorKind::Data,
                {.where = "cli.mix",
                 .what = origin + " names an adapter that --mix does not give",
                 .got = "'" + name + "'",
                 .allowed = fmt::format("{}", fmt::join(names_, ", ")),
                 .hint = config::nearest(name, names_)});
  }
  return found - names_.begin();
}

}  // namespace kamerton::cli
