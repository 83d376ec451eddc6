// SPDX-License-Identifier: Apache-2.0
#include "kamerton/tuning/peft_format.h"

#include <algorithm>
#include <optional>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/storage/filesystem.h"

#include "patterns.h"
#include "peft_config.h"

namespace kamerton::tuning {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

constexpr uint64_t kMaxConfigBytes = 16 << 20;  // AdaLoRA's holds a flag a rank

[[noreturn]] void refuse(const std::string& origin,
                         const std::string& what,
                         const std::string& got,
                         const std::string& allowed,
                         const std::string& hint = "") {
  throw Error(ErrorKind::Data,
              {.where = "tuning.peft_format",
               .what = what + " in " + origin,
               .got = got,
               .allowed = allowed,
               .hint = hint});
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

at::ScalarType scalar_type(storage::DType dtype, const std::string& origin) {
  switch (dtype) {
    case storage::DType::F32:
      return at::kFloat;
    case storage::DType::F16:
      return at::kHalf;
    case storage::DType::BF16:
      return at::kBFloat16;
    case storage::DType::F64:
      return at::kDouble;
    case storage::DType::I32:
      return at::kInt;
    default:
      refuse(origin,
             "an adapter tensor is of a type without a meaning here",
             std::string(storage::name_of(dtype)),
             "F32, F16, BF16, F64; I32 for positions");
  }
}

void check_shape(const storage::TensorEntry& entry,
                 const std::vector<int64_t>& shape,
                 const std::string& origin) {
  if (entry.shape != shape) {
    refuse(origin,
           "the shape of '" + entry.name + "' does not fit the model",
           shape_text(entry.shape),
           shape_text(shape),
           "the base model that this adapter was trained on");
  }
}

/// A base weight that PEFT saves beside a changed embedding.
bool is_copy_of_base(const std::string& key) {
  return key.ends_with(".base_layer.weight");
}

}  // namespace

std::vector<int64_t> AdapterEntry::stored_shape() const {
  std::vector<int64_t> shape = parameter->shape;
  if (places > 1) {
    shape.back() *= places;
  }
  return shape;
}

PeftAdapter PeftAdapter::open(const std::filesystem::path& folder) {
  PeftAdapter adapter;
  const auto config_path = folder / "adapter_config.json";
  const std::string text = storage::posix_filesystem().read_file(config_path, kMaxConfigBytes);
  const Json config = core::parse_json(text, config_path.string());
  adapter.spec_ = read_config(config, config_path.string());
  if (const Json* base = core::json_find(config, "base_model_name_or_path");
      base != nullptr && base->is_string()) {
    adapter.base_model_ = base->get<std::string>();
  }
  const bool hub = is_hub_config(config);
  adapter.file_ = std::make_shared<storage::SafetensorsFile>(storage::SafetensorsFile::open(
      folder / (hub ? "adapter.safetensors" : "adapter_model.safetensors")));
  for (const storage::TensorEntry& entry : adapter.file_->entries()) {
    adapter.stored_[hub ? name_of_hub(entry.name) : entry.name] = entry.name;
  }
  // Of models whose tie PEFT does not find, it keeps the head as it was whatever is asked.
  adapter.spec_.keeps_tie =
      adapter.spec_.keeps_tie && adapter.stored_.count("base_model.model.lm_head.weight") != 0;
  return adapter;
}

const storage::TensorEntry& PeftAdapter::entry(const std::string& key) const {
  const auto stored = stored_.find(key);
  if (stored == stored_.end()) {
    std::vector<std::string> names;
    for (const auto& [name, in_file] : stored_) {
      names.push_back(name);
    }
    refuse(file_->path().string(),
           "an adapter tensor is missing",
           "no " + key,
           "one for every targeted module",
           config::nearest(key, names));
  }
  return *file_->find(stored->second);
}

at::Tensor PeftAdapter::tensor(const std::string& key) const {
  const storage::TensorEntry& found = entry(key);
  at::Tensor stored = at::empty(found.shape, scalar_type(found.dtype, file_->path().string()));
  file_->file().read(found.offset,
                     std::span(static_cast<std::byte*>(stored.mutable_data_ptr()),
                               static_cast<size_t>(stored.nbytes())));
  if (!at::isfinite(stored).all().item<bool>()) {
    refuse(file_->path().string(), "a value is not finite", found.name, "finite numbers");
  }
  return stored.to(at::kFloat);
}

bool PeftAdapter::holds(const tensor::Parameter& parameter) const {
  return by_parameter_.count(parameter.name) != 0;
}

void PeftAdapter::read(const tensor::Parameter& parameter, int64_t offset, at::Tensor out) const {
  const auto bound = by_parameter_.find(parameter.name);
  const std::string key =
      bound == by_parameter_.end() ? std::string(kPeftPrefix) + parameter.name : bound->second.key;
  if (bound != by_parameter_.end() && bound->second.places > 1) {
    const int64_t width = parameter.shape.back();
    const at::Tensor part = tensor(key).narrow(-1, bound->second.place * width, width);
    out.copy_(part.contiguous().view({-1}).narrow(0, offset, out.numel()));
    return;
  }
  const std::string origin = file_->path().string();
  const storage::TensorEntry& found = entry(key);
  check_shape(found, parameter.shape, origin);
  at::Tensor stored = at::empty({out.numel()}, scalar_type(found.dtype, origin));
  const size_t width = storage::size_of(found.dtype);
  file_->file().read(found.offset + static_cast<size_t>(offset) * width,
                     std::span(static_cast<std::byte*>(stored.mutable_data_ptr()),
                               static_cast<size_t>(out.numel()) * width));
  if (!at::isfinite(stored).all().item<bool>()) {
    refuse(origin, "a value is not finite", found.name, "finite numbers");
  }
  out.copy_(stored);
}

void PeftAdapter::bind(const Adapter& adapter) {
  const std::string origin = file_->path().string();
  std::set<std::string> known;
  for (const AdapterEntry& one : adapter.entries()) {
    check_shape(entry(one.key), one.stored_shape(), origin);
    known.insert(one.key);
    known.insert(one.copies.begin(), one.copies.end());
    by_parameter_[one.parameter->name] = one;
  }
  for (const AdapterConstant& constant : adapter.constants()) {
    known.insert(constant.keys.begin(), constant.keys.end());
    bool found = false;
    for (const std::string& key : constant.keys) {
      if (stored_.count(key) != 0) {
        check_shape(entry(key), constant.value->sizes().vec(), origin);
        constant.value->copy_(tensor(key));
        found = true;
        break;
      }
    }
    if (constant.needed && !found) {
      entry(constant.keys[0]);
    }
  }
  for (const auto& [key, name] : stored_) {
    if (known.count(key) == 0 && !is_copy_of_base(key)) {
      refuse(origin,
             "a tensor has no place in this model",
             name,
             "tensors of the targeted modules",
             config::nearest(key, {known.begin(), known.end()}));
    }
  }
}

namespace {

/// One tensor of the file and how its value is made.
struct Stored {
  std::vector<std::string> keys;
  std::vector<int64_t> shape;
  std::vector<const AdapterEntry*> parts;
  int64_t doubled_dim = -1;  ///< PiSSA: the start follows the end along it
  at::Tensor kept = {};      ///< defined: of triplets (AdaLoRA) only these are stored
  int64_t kept_dim = 0;
};

/// Of each module that has lost some: which triplets are left, as places. Collective as fetch is;
/// of use on the writing rank.
using KeptTriplets = std::map<std::string, at::Tensor>;

/// A triplet whose element of E is 0 does nothing. An adapter that never moved keeps all.
KeptTriplets kept_triplets(const Adapter& adapter, const Fetch& fetch, bool writes) {
  KeptTriplets kept;
  bool moved = false;
  for (const ModuleTriplets& triplets : adapter.triplets()) {
    const at::Tensor e = fetch(*triplets.e);
    if (!writes) {
      continue;
    }
    const at::Tensor places = e.detach().to(at::kCPU).reshape({-1}).nonzero().reshape({-1});
    moved = moved || places.numel() > 0;
    if (places.numel() < e.numel()) {
      kept.emplace(triplets.module, places);
    }
  }
  return moved ? kept : KeptTriplets();
}

/// PEFT's rank_pattern: a flag for each triplet of the first rank. `before`: what the adapter
/// itself was pruned to when it was attached.
Json rank_pattern(const Adapter& adapter, const KeptTriplets& kept, const Json& before) {
  Json pattern = before.is_object() ? before : Json::object();
  for (const ModuleTriplets& triplets : adapter.triplets()) {
    const std::string name = triplets.module + ".lora_E";
    Json& flags = pattern[name];
    if (flags.is_null()) {
      flags = std::vector<bool>(static_cast<size_t>(triplets.e->numel()), true);
    }
    const auto found = kept.find(triplets.module);
    int64_t place = 0;
    for (size_t i = 0; found != kept.end() && i < flags.size(); ++i) {
      if (flags[i].get<bool>()) {
        flags[i] = found->second.eq(place++).any().item<bool>();
      }
    }
  }
  return pattern;
}

void keep_triplets(Stored& stored,
                   const tensor::Parameter& parameter,
                   const Adapter& adapter,
                   const KeptTriplets& kept) {
  for (const ModuleTriplets& triplets : adapter.triplets()) {
    const bool columns = &parameter == triplets.b.get();
    if (!columns && &parameter != triplets.a.get() && &parameter != triplets.e.get()) {
      continue;
    }
    if (const auto found = kept.find(triplets.module); found != kept.end()) {
      stored.kept = found->second;
      stored.kept_dim = columns ? 1 : 0;
      stored.shape[static_cast<size_t>(stored.kept_dim)] = stored.kept.numel();
    }
    return;
  }
}

/// What the file holds, parts of one matrix together.
std::vector<Stored> plan_file(const Adapter& adapter, bool doubled, const KeptTriplets& kept) {
  std::vector<Stored> plan;
  std::map<std::string, size_t> by_key;
  for (const AdapterEntry& entry : adapter.entries()) {
    const auto [place, fresh] = by_key.emplace(entry.key, plan.size());
    if (!fresh) {
      plan[place->second].parts.push_back(&entry);
      continue;
    }
    Stored stored{{entry.key}, entry.stored_shape(), {&entry}};
    stored.keys.insert(stored.keys.end(), entry.copies.begin(), entry.copies.end());
    if (doubled && entry.parameter->adapter) {
      stored.doubled_dim = entry.key.ends_with(".lora_A.weight") ? 0 : 1;
      stored.shape[static_cast<size_t>(stored.doubled_dim)] *= 2;
    }
    if (!kept.empty()) {
      keep_triplets(stored, *entry.parameter, adapter, kept);
    }
    plan.push_back(std::move(stored));
  }
  return plan;
}

/// The file's tensor, whole, on the writing rank. Collective as fetch is.
at::Tensor value_of(const Stored& stored,
                    const Adapter& adapter,
                    const Fetch& fetch,
                    bool writes,
                    const StartOfRun& start) {
  std::vector<at::Tensor> parts(stored.parts.size());
  for (const AdapterEntry* entry : stored.parts) {
    const at::Tensor whole = fetch(*entry->parameter);
    if (!writes) {
      continue;
    }
    if (whole.numel() != entry->parameter->numel()) {
      throw Error(ErrorKind::Internal,
                  {.where = "tuning.peft_format",
                   .what = "an adapter tensor is not whole",
                   .got = entry->parameter->name});
    }
    parts[static_cast<size_t>(entry->place)] =
        whole.detach().to(at::kCPU, at::kFloat).view(entry->parameter->shape);
  }
  if (!writes) {
    return {};
  }
  if (stored.doubled_dim >= 0) {
    const tensor::Parameter& parameter = *stored.parts[0]->parameter;
    at::Tensor before = at::empty({parameter.numel()}, at::kFloat);
    adapter.initialise(parameter, start.seed, 0, before, start.base);
    before = before.view(parameter.shape);
    parts.push_back(stored.doubled_dim == 0 ? before : before.neg());
    return at::cat(parts, stored.doubled_dim).contiguous();
  }
  if (stored.kept.defined()) {
    return parts[0].index_select(stored.kept_dim, stored.kept).contiguous();
  }
  return parts.size() == 1 ? parts[0].contiguous() : at::cat(parts, -1).contiguous();
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()),
          static_cast<size_t>(tensor.nbytes())};
}

storage::DType type_of(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kInt ? storage::DType::I32 : storage::DType::F32;
}

/// As PEFT writes them: "all-linear" as the names that it means; an expression for chosen layers,
/// which PEFT does not take, as the modules themselves.
AdapterSpec resolved(const Adapter& adapter) {
  AdapterSpec spec = adapter.spec();
  const std::vector<std::string> modules = adapter.modules();
  const auto is_expression = [](const std::string& name) { return name.starts_with("re:"); };
  const auto has = [](const std::vector<std::string>& list, const auto& what) {
    return std::any_of(list.begin(), list.end(), what);
  };
  const bool expression = has(spec.targets, is_expression);
  const bool all = has(spec.targets, [](const std::string& name) { return name == "all-linear"; });
  const bool excludes = spec.excluded.size() > 1 && has(spec.excluded, is_expression);
  if (excludes || (expression && (!spec.layers_to_transform.empty() || spec.targets.size() > 1))) {
    const std::string& embedding = adapter.decoder().config().names.embedding;
    const bool embeds = names_module(spec, embedding);
    spec.targets = modules;
    if (embeds) {
      spec.targets.push_back(embedding);
    }
    spec.layers_to_transform.clear();
    spec.excluded.clear();
    return spec;
  }
  if (all) {
    std::vector<std::string> names;
    for (const std::string& module : modules) {
      names.push_back(module.substr(module.rfind('.') + 1));
    }
    for (const std::string& target : spec.targets) {
      if (target != "all-linear") {
        names.push_back(target);
      }
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    spec.targets = names;
  }
  return spec;
}

bool takes_part(const Adapter& adapter, const model::Decoder& decoder) {
  for (const model::Linear* linear : decoder.linears()) {
    if (adapter.changes_base(*linear->weight)) {
      return true;
    }
  }
  return false;
}

}  // namespace

void write_peft(const std::filesystem::path& folder,
                const Adapter& adapter,
                const std::string& base_model,
                const Fetch& fetch,
                bool writes,
                const StartOfRun& start) {
  const bool doubled = takes_part(adapter, adapter.decoder());
  const KeptTriplets kept = kept_triplets(adapter, fetch, writes);
  const std::vector<Stored> plan = plan_file(adapter, doubled, kept);
  std::optional<storage::SafetensorsWriter> writer;
  if (writes) {
    storage::posix_filesystem().make_directories(folder);
    std::vector<storage::TensorDeclaration> declarations;
    for (const Stored& stored : plan) {
      for (const std::string& key : stored.keys) {
        declarations.push_back({key, storage::DType::F32, stored.shape});
      }
    }
    for (const AdapterConstant& constant : adapter.constants()) {
      for (const std::string& key : constant.keys) {
        declarations.push_back({key, type_of(*constant.value), constant.value->sizes().vec()});
      }
    }
    writer.emplace(folder / "adapter_model.safetensors", declarations);
  }
  for (const Stored& stored : plan) {
    const at::Tensor whole = value_of(stored, adapter, fetch, writes, start);
    for (const std::string& key : writes ? stored.keys : std::vector<std::string>{}) {
      writer->write(key, bytes_of(whole));
    }
  }
  if (!writes) {
    return;
  }
  for (const AdapterConstant& constant : adapter.constants()) {
    const at::Tensor value = constant.value->to(at::kCPU).contiguous();
    for (const std::string& key : constant.keys) {
      writer->write(key, bytes_of(value));
    }
  }
  // The tensors first, the config last: a folder with a config is complete.
  writer->finish();
  const bool transposed = adapter.decoder().config().transposed_linear;
  AdapterSpec spec = resolved(adapter);
  if (!kept.empty()) {
    Json& pattern = (*spec.settings)["rank_pattern"];
    pattern = rank_pattern(adapter, kept, pattern);
  }
  storage::write_file_atomic(storage::posix_filesystem(),
                             folder / "adapter_config.json",
                             config_json(spec, base_model, transposed, doubled).dump(2) + "\n");
}

}  // namespace kamerton::tuning
