// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/combine.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"

#include "patterns.h"
#include "peft_config.h"
#include "task_vectors.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;

constexpr std::string_view kA = ".lora_A.weight";
constexpr std::string_view kB = ".lora_B.weight";

[[noreturn]] void refuse(ErrorKind kind,
                         const std::string& what,
                         const std::string& got,
                         const std::string& allowed,
                         const std::string& hint = "") {
  throw Error(
      kind,
      {.where = "tuning.combine", .what = what, .got = got, .allowed = allowed, .hint = hint});
}

/// An adapter's part at one module.
struct Part {
  at::Tensor a, b;
  double scale = 0;
  double weight = 0;
  at::Tensor delta() const { return at::mm(b, a) * scale; }
};

struct Source {
  PeftAdapter file;
  double weight;
  std::set<std::string> modules;

  double scale(const std::string& module, int64_t rank) const {
    const core::Json& settings = *file.spec().settings;
    const double alpha =
        pattern_value(settings["alpha_pattern"], module, settings["lora_alpha"].get<double>());
    const auto r = static_cast<double>(rank);
    return alpha / (settings["use_rslora"].get<bool>() ? std::sqrt(r) : r);
  }
  Part part(const std::string& module) const {
    const std::string key = std::string(kPeftPrefix) + module;
    Part part{file.tensor(key + std::string(kA)), file.tensor(key + std::string(kB)), 0, weight};
    part.scale = scale(module, part.a.size(0));
    return part;
  }
};

Source open_source(const std::filesystem::path& folder, double weight) {
  Source source{PeftAdapter::open(folder), weight, {}};
  const AdapterSpec& spec = source.file.spec();
  const bool plain = spec.method == "lora" && spec.modules_to_save.empty() && spec.bias == "none" &&
                     !(*spec.settings)["use_dora"].get<bool>();
  const core::Json init = plain ? (*spec.settings)["init_lora_weights"] : core::Json(true);
  if (init == "pissa" || init == "olora") {
    refuse(ErrorKind::Data,
           "an adapter whose start changed the base cannot be combined",
           fmt::format("{} (init_lora_weights: {})", folder.string(), init.dump()),
           "adapters of the untouched base",
           "PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)");
  }
  for (const storage::TensorEntry& entry : source.file.file().entries()) {
    if (!plain || !(entry.name.ends_with(kA) || entry.name.ends_with(kB))) {
      refuse(ErrorKind::Data,
             "only plain LoRA on linear modules can be combined",
             fmt::format("{} ({}, {})", folder.string(), spec.method, entry.name),
             "LoRA without use_dora, modules_to_save and bias");
    }
    if (entry.name.ends_with(kA)) {
      source.modules.insert(entry.name.substr(kPeftPrefix.size(),
                                              entry.name.size() - kPeftPrefix.size() - kA.size()));
    }
  }
  return source;
}

std::string base_way(const std::string& how) {
  return how.ends_with("_svd") ? how.substr(0, how.size() - 4) : how == "svd" ? "linear" : how;
}
bool on_updates(const std::string& how) {
  return how == "svd" || how.ends_with("_svd");
}

/// Of one module: factors of the result, its scale 1.
std::pair<at::Tensor, at::Tensor> combine_module(const std::vector<Part>& parts,
                                                 const CombineOptions& options,
                                                 const std::string& module,
                                                 int64_t rank) {
  TaskOptions tasks{base_way(options.how),
                    options.density,
                    options.majority == "frequency",
                    options.seed,
                    module};
  std::vector<at::Tensor> as, bs, deltas;
  std::vector<double> plain, for_a, for_b;
  for (const Part& part : parts) {
    const double whole = part.weight * part.scale;
    plain.push_back(part.weight);
    for_b.push_back(std::sqrt(std::abs(whole)));
    for_a.push_back(std::copysign(for_b.back(), whole));
    if (on_updates(options.how)) {
      deltas.push_back(part.delta());
    } else if (options.how == "cat") {
      as.push_back(part.a * whole);
      bs.push_back(part.b);
    } else {
      as.push_back(part.a);
      bs.push_back(part.b);
    }
  }
  if (on_updates(options.how)) {
    const auto [u, s, vh] = at::linalg_svd(combine_tasks(deltas, plain, tasks), false);
    const int64_t kept = std::min(rank, s.size(0));
    return {vh.narrow(0, 0, kept), u.narrow(1, 0, kept) * s.narrow(0, 0, kept)};
  }
  if (options.how == "cat") {
    return {at::cat(as), at::cat(bs, 1)};
  }
  at::Tensor a = combine_tasks(as, for_a, tasks);
  tasks.name += ".B";
  return {a, combine_tasks(bs, for_b, tasks)};
}

/// Zeros up to the rank that all modules share.
at::Tensor padded(const at::Tensor& x, int64_t dim, int64_t rank) {
  const int64_t missing = rank - x.size(dim);
  return (dim == 0 ? at::constant_pad_nd(x, {0, 0, 0, missing})
                   : at::constant_pad_nd(x, {0, missing}))
      .contiguous();
}

void check_options(const std::vector<std::filesystem::path>& adapters,
                   const CombineOptions& options) {
  const std::vector<std::string> names = combination_names();
  if (std::find(names.begin(), names.end(), options.how) == names.end()) {
    refuse(ErrorKind::Config,
           "no such way to combine",
           "'" + options.how + "'",
           fmt::format("{}", fmt::join(names, ", ")),
           config::nearest(options.how, names));
  }
  if (adapters.size() != options.weights.size() || adapters.empty()) {
    refuse(ErrorKind::Config,
           "every adapter needs one weight",
           fmt::format("{} adapters, {} weights", adapters.size(), options.weights.size()),
           "as many");
  }
  if (!(options.density > 0 && options.density <= 1)) {
    refuse(ErrorKind::Config,
           "the density is out of range",
           fmt::format("{}", options.density),
           "above 0, up to 1");
  }
  if (options.majority != "total" && options.majority != "frequency") {
    refuse(ErrorKind::Config, "unknown majority", options.majority, "total, frequency");
  }
}

int64_t rank_of_result(const std::vector<std::vector<Part>>& modules,
                       const CombineOptions& options) {
  int64_t largest = 0;
  int64_t sum = 0;
  for (const std::vector<Part>& parts : modules) {
    int64_t total = 0;
    for (const Part& part : parts) {
      const int64_t rank = part.a.size(0);
      if (largest != 0 && rank != largest && options.how != "cat" && !on_updates(options.how)) {
        refuse(ErrorKind::Config,
               "factors of different rank cannot be combined one by one",
               fmt::format("{} and {}", largest, rank),
               "adapters of one rank",
               "--how svd or cat");
      }
      largest = std::max(largest, rank);
      total += rank;
    }
    sum = std::max(sum, total);
  }
  return options.how == "cat"                          ? sum
         : on_updates(options.how) && options.rank > 0 ? options.rank
                                                       : largest;
}

void check_shapes(const std::vector<Part>& parts, const std::string& module) {
  for (const Part& part : parts) {
    if (part.a.size(1) != parts[0].a.size(1) || part.b.size(0) != parts[0].b.size(0)) {
      refuse(ErrorKind::Data,
             "the adapters are for different models: " + module,
             fmt::format("[{}, {}]", part.b.size(0), part.a.size(1)),
             fmt::format("[{}, {}]", parts[0].b.size(0), parts[0].a.size(1)));
    }
  }
}

void write_result(const std::filesystem::path& to,
                  const Source& like,
                  const std::vector<std::string>& names,
                  const std::vector<std::pair<at::Tensor, at::Tensor>>& factors,
                  int64_t rank) {
  std::vector<storage::TensorDeclaration> declarations;
  std::vector<at::Tensor> tensors;
  std::set<std::string> targets;
  for (size_t i = 0; i < names.size(); ++i) {
    targets.insert(names[i]);
    const std::string key = std::string(kPeftPrefix) + names[i];
    tensors.push_back(padded(factors[i].first, 0, rank));
    declarations.push_back(
        {key + std::string(kA), storage::DType::F32, tensors.back().sizes().vec()});
    tensors.push_back(padded(factors[i].second, 1, rank));
    declarations.push_back(
        {key + std::string(kB), storage::DType::F32, tensors.back().sizes().vec()});
  }
  storage::posix_filesystem().make_directories(to);
  storage::SafetensorsWriter writer(to / "adapter_model.safetensors", declarations);
  for (size_t i = 0; i < tensors.size(); ++i) {
    writer.write(declarations[i].name,
                 std::as_bytes(std::span(tensors[i].const_data_ptr<float>(),
                                         static_cast<size_t>(tensors[i].numel()))));
  }
  writer.finish();
  AdapterSpec spec = like.file.spec();
  spec.targets.assign(targets.begin(), targets.end());
  spec.excluded.clear();
  spec.layers_to_transform.clear();
  for (const char* key : {"rank_pattern", "alpha_pattern"}) {
    (*spec.settings)[key] = core::Json::object();
  }
  (*spec.settings)["r"] = rank;
  (*spec.settings)["lora_alpha"] = static_cast<double>(rank);
  (*spec.settings)["use_rslora"] = false;
  (*spec.settings)["init_lora_weights"] = true;
  storage::write_file_atomic(
      storage::posix_filesystem(),
      to / "adapter_config.json",
      config_json(spec, like.file.base_model(), false, false).dump(2) + "\n");
}

}  // namespace

std::vector<std::string> combination_names() {
  return {"linear",
          "cat",
          "svd",
          "ties",
          "ties_svd",
          "dare_linear",
          "dare_linear_svd",
          "dare_ties",
          "dare_ties_svd",
          "magnitude_prune",
          "magnitude_prune_svd"};
}

void combine(const std::vector<std::filesystem::path>& adapters,
             const CombineOptions& options,
             const std::filesystem::path& to) {
  const at::NoGradGuard no_grad;
  check_options(adapters, options);
  std::vector<Source> sources;
  std::set<std::string> all;
  for (size_t i = 0; i < adapters.size(); ++i) {
    sources.push_back(open_source(adapters[i], options.weights[i]));
    all.insert(sources.back().modules.begin(), sources.back().modules.end());
  }
  const std::vector<std::string> names(all.begin(), all.end());
  std::vector<std::vector<Part>> modules;
  for (const std::string& name : names) {
    std::vector<Part>& parts = modules.emplace_back();
    for (const Source& source : sources) {
      if (source.modules.count(name) != 0) {
        parts.push_back(source.part(name));
      }
    }
    check_shapes(parts, name);
  }
  const int64_t rank = rank_of_result(modules, options);
  std::vector<std::pair<at::Tensor, at::Tensor>> factors;
  for (size_t i = 0; i < names.size(); ++i) {
    factors.push_back(combine_module(modules[i], options, names[i], rank));
  }
  write_result(to, sources[0], names, factors, rank);
}

std::vector<TensorDifference> differences(const PeftAdapter& first, const PeftAdapter& second) {
  std::set<std::string> keys;
  for (const PeftAdapter* adapter : {&first, &second}) {
    for (const storage::TensorEntry& entry : adapter->file().entries()) {
      keys.insert(entry.name);
    }
  }
  const auto norm = [](const at::Tensor& x) {
    return at::linalg_vector_norm(x.to(at::kDouble)).item<double>();
  };
  std::vector<TensorDifference> all;
  for (const std::string& key : keys) {
    TensorDifference one{.key = key};
    const bool in_first = first.file().find(key) != nullptr;
    const bool in_second = second.file().find(key) != nullptr;
    const at::Tensor a = in_first ? first.tensor(key) : at::zeros_like(second.tensor(key));
    const at::Tensor b = in_second ? second.tensor(key) : at::zeros_like(a);
    if (a.sizes() != b.sizes()) {
      refuse(ErrorKind::Data,
             "the shapes of '" + key + "' differ",
             fmt::format("[{}]", fmt::join(b.sizes().vec(), ", ")),
             fmt::format("[{}]", fmt::join(a.sizes().vec(), ", ")));
    }
    one.first = norm(a);
    one.second = norm(b);
    one.difference = norm(a - b);
    const double lengths = one.first * one.second;
    one.cosine =
        lengths > 0 ? (a.to(at::kDouble) * b.to(at::kDouble)).sum().item<double>() / lengths : 0.0;
    all.push_back(std::move(one));
  }
  return all;
}

}  // namespace kamerton::tuning
