// SPDX-License-Identifier: Apache-2.0
// kamerton adapter list, show, diff, combine and methods; merge is in adapter_merge_cmd.cpp.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/core/format.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/tuning/combine.h"
#include "kamerton/tuning/describe_methods.h"

#include "command.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;

int64_t elements_of(const tuning::PeftAdapter& adapter) {
  int64_t elements = 0;
  for (const storage::TensorEntry& entry : adapter.file().entries()) {
    elements += entry.num_elements;
  }
  return elements;
}

std::string method_text(const tuning::AdapterSpec& spec) {
  const core::Json* r = core::json_find(*spec.settings, "r");
  const bool ranked = r != nullptr && r->is_number_integer() && r->get<int64_t>() > 0;
  return ranked ? fmt::format("{} r {}", spec.method, r->dump()) : spec.method;
}

/// Folders below `root` that hold an adapter, itself included, in order of their names.
std::vector<fs::path> find_adapters(const fs::path& root) {
  std::vector<fs::path> found;
  if (!fs::is_directory(root)) {
    throw Error(ErrorKind::Data,
                {.where = "cli.adapter", .what = "this is not a folder", .got = root.string()});
  }
  if (fs::exists(root / "adapter_config.json")) {
    found.push_back(root);
  }
  for (const auto& entry :
       fs::recursive_directory_iterator(root, fs::directory_options::skip_permission_denied)) {
    if (entry.is_directory() && fs::exists(entry.path() / "adapter_config.json")) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

int run_list(const po::variables_map& arguments, comm::Session*) {
  const auto roots = value_or<std::vector<std::string>>(arguments, "path", {"."});
  fmt::print("{:<47} {:<22}{:>14}{:>12}  {}\n", "folder", "method", "parameters", "size", "base");
  for (const std::string& root : roots) {
    for (const fs::path& folder : find_adapters(root)) {
      try {
        const tuning::PeftAdapter adapter = tuning::PeftAdapter::open(folder);
        fmt::print("{:<47} {:<22}{:>14}{:>12}  {}\n",
                   folder.string(),
                   method_text(adapter.spec()),
                   elements_of(adapter),
                   core::format_bytes(fs::file_size(adapter.file().path())),
                   adapter.base_model());
      } catch (const Error& error) {  // one that cannot be read does not hide the others
        fmt::print("{:<47} {}\n", folder.string(), error.what());
      }
    }
  }
  return 0;
}

/// A pattern of flags (AdaLoRA's rank_pattern) as how many of them are set, module by module.
std::string setting_text(const core::Json& value) {
  const bool flags = value.is_object() && !value.empty() && value.begin()->is_array();
  if (!flags) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  }
  std::string text;
  for (const auto& [name, list] : value.items()) {
    const int64_t kept = std::count(list.begin(), list.end(), core::Json(true));
    text += fmt::format("\n  {:<70}  {} of {}", name, kept, list.size());
  }
  return text;
}

int run_adapter_show(const po::variables_map& arguments, comm::Session*) {
  static const Command self = adapter_show_command();
  const tuning::PeftAdapter adapter =
      tuning::PeftAdapter::open(required(arguments, "adapter", self));
  const auto row = [](const std::string& name, const std::string& value) {
    fmt::print("{:<28}{}\n", name, value);
  };
  const tuning::AdapterSpec& spec = adapter.spec();
  row("method", spec.method);
  row("base model", adapter.base_model().empty() ? "not named" : adapter.base_model());
  for (const auto& [name, value] : spec.settings->items()) {
    if (!value.is_null() && !(value.is_structured() && value.empty())) {
      row(name, setting_text(value));
    }
  }
  if (!spec.targets.empty()) {
    row("targets", fmt::format("{}", fmt::join(spec.targets, ", ")));
  }
  if (!spec.excluded.empty()) {
    row("excluded", fmt::format("{}", fmt::join(spec.excluded, ", ")));
  }
  if (!spec.layers_to_transform.empty()) {
    row("layers", fmt::format("{}", fmt::join(spec.layers_to_transform, ", ")));
  }
  if (!spec.modules_to_save.empty()) {
    row("modules to save", fmt::format("{}", fmt::join(spec.modules_to_save, ", ")));
  }
  row("bias", spec.bias);
  row("parameters",
      fmt::format("{} in {} tensors", elements_of(adapter), adapter.file().entries().size()));
  for (const storage::TensorEntry& entry : adapter.file().entries()) {
    const at::Tensor values = adapter.tensor(entry.name);
    fmt::print("  {:<72}[{}]  norm {:.4g}\n",
               entry.name,
               fmt::join(entry.shape, ", "),
               values.norm().item<double>());
  }
  return 0;
}

int run_diff(const po::variables_map& arguments, comm::Session*) {
  static const Command self = adapter_diff_command();
  const auto folders = value_or<std::vector<std::string>>(arguments, "adapter", {});
  if (folders.size() != 2) {
    throw Error(ErrorKind::Config,
                {.where = "cli.adapter",
                 .what = "two adapters are compared",
                 .got = std::to_string(folders.size()),
                 .allowed = self.usage});
  }
  const tuning::PeftAdapter first = tuning::PeftAdapter::open(folders[0]);
  const tuning::PeftAdapter second = tuning::PeftAdapter::open(folders[1]);
  fmt::print("{:<28}{} | {}\n", "method", first.spec().method, second.spec().method);
  for (const auto& [name, value] : first.spec().settings->items()) {
    const core::Json* other = core::json_find(*second.spec().settings, name);
    if (other == nullptr || *other != value) {
      fmt::print("{:<28}{} | {}\n", name, value.dump(), other == nullptr ? "none" : other->dump());
    }
  }
  double whole = 0;
  const std::vector<tuning::TensorDifference> all = tuning::differences(first, second);
  fmt::print("{:<72}{:>11}{:>11}{:>11}{:>9}\n", "tensor", "|a|", "|b|", "|a - b|", "cosine");
  for (const tuning::TensorDifference& one : all) {
    whole += one.difference * one.difference;
    if (one.difference > 0) {
      fmt::print("{:<72}{:>11.4g}{:>11.4g}{:>11.4g}{:>9.4f}\n",
                 one.key,
                 one.first,
                 one.second,
                 one.difference,
                 one.cosine);
    }
  }
  fmt::print("{} of {} tensors differ, |a - b| = {:.6g}\n",
             std::count_if(all.begin(), all.end(), [](const auto& d) { return d.difference > 0; }),
             all.size(),
             std::sqrt(whole));
  return 0;
}

int run_combine(const po::variables_map& arguments, comm::Session*) {
  static const Command self = adapter_combine_command();
  const auto folders = value_or<std::vector<std::string>>(arguments, "adapter", {});
  const fs::path to = required(arguments, "to", self);
  if (fs::exists(to / "adapter_config.json") && arguments.count("force") == 0) {
    throw Error(ErrorKind::Output,
                {.where = "cli.adapter",
                 .what = "there is an adapter already",
                 .got = to.string(),
                 .hint = "--force, or another folder"});
  }
  tuning::CombineOptions options;
  options.how = arguments["how"].as<std::string>();
  options.weights =
      value_or<std::vector<double>>(arguments, "weight", std::vector<double>(folders.size(), 1.0));
  options.density = arguments["density"].as<double>();
  options.majority = arguments["majority"].as<std::string>();
  options.rank = arguments["rank"].as<int64_t>();
  options.seed = static_cast<uint64_t>(arguments["seed"].as<int64_t>());
  tuning::combine({folders.begin(), folders.end()}, options, to);
  fmt::print("{}\n", to.string());
  return 0;
}

int run_methods(const po::variables_map&, comm::Session*) {
  std::fputs(tuning::methods_text().c_str(), stdout);
  return 0;
}

}  // namespace

Command adapter_list_command() {
  return {.name = "adapter list",
          .summary = "the adapters in folders, with method, size and base model",
          .usage = "kamerton adapter list [DIR]...",
          .description = "Example:\n  kamerton adapter list runs",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()(
                    "path", po::value<std::vector<std::string>>(), "where to look");
                positional.add("path", -1);
              },
          .run = run_list};
}

Command adapter_show_command() {
  return {.name = "adapter show",
          .summary = "settings and tensors of an adapter",
          .usage = "kamerton adapter show DIR",
          .description = "Example:\n  kamerton adapter show runs/quickstart/adapter",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()("adapter", po::value<std::string>(), "its folder");
                positional.add("adapter", 1);
              },
          .run = run_adapter_show};
}

Command adapter_diff_command() {
  return {
      .name = "adapter diff",
      .summary = "how two adapters differ, setting by setting and tensor by tensor",
      .usage = "kamerton adapter diff DIR DIR",
      .description = "Example:\n  kamerton adapter diff runs/monday/adapter runs/friday/adapter",
      .add_options =
          [](po::options_description& options, po::positional_options_description& positional) {
            options.add_options()(
                "adapter", po::value<std::vector<std::string>>(), "the two folders");
            positional.add("adapter", 2);
          },
      .run = run_diff};
}

Command adapter_combine_command() {
  return {
      .name = "adapter combine",
      .summary = "several LoRA adapters become one",
      .usage = "kamerton adapter combine DIR DIR... --to DIR [--how linear] [--weight W]...",
      .description =
          "--how linear adds factors, cat keeps all of them (exact, ranks add up), svd is the "
          "best of one rank; ties, dare_linear,\n"
          "dare_ties and magnitude_prune drop values by --density first; with _svd they work on "
          "whole updates. As PEFT's\n"
          "add_weighted_adapter.\n\nExample:\n"
          "  kamerton adapter combine adapters/law adapters/style --how ties --density 0.5 "
          "--weight 1 --weight 0.7 --to adapters/both",
      .add_options =
          [](po::options_description& options, po::positional_options_description& positional) {
            options.add_options()(
                "adapter", po::value<std::vector<std::string>>(), "folders of the adapters")(
                "to", po::value<std::string>(), "the folder to write")(
                "how", po::value<std::string>()->default_value("linear"), "the way to combine")(
                "weight",
                po::value<std::vector<double>>(),
                "of each adapter, in their order; 1 each by default")(
                "density",
                po::value<double>()->default_value(1.0),
                "share of the values that is kept")(
                "majority",
                po::value<std::string>()->default_value("total"),
                "ties: total or frequency")("rank",
                                            po::value<int64_t>()->default_value(0),
                                            "svd: of the result; 0: the largest")(
                "seed", po::value<int64_t>()->default_value(0), "dare: what is dropped")(
                "force", "replace what is there");
            positional.add("adapter", -1);
          },
      .run = run_combine};
}

Command adapter_methods_command() {
  return {.name = "adapter methods",
          .summary = "the methods of tuning with their settings",
          .usage = "kamerton adapter methods",
          .description =
              "What tuning.method, tuning.settings and tuning.targets may say.\n\nExample:\n"
              "  kamerton adapter methods",
          .add_options = [](po::options_description&, po::positional_options_description&) {},
          .run = run_methods};
}

}  // namespace kamerton::cli
