// SPDX-License-Identifier: Apache-2.0
#include "kamerton/train/snapshot.h"

#include <map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/checkpoint/store.h"
#include "kamerton/core/error.h"
#include "kamerton/core/log.h"

namespace kamerton::train {
namespace {

using core::Error;
using core::ErrorKind;
using core::Json;

storage::DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return storage::DType::F32;
    case at::kBFloat16:
      return storage::DType::BF16;
    case at::kHalf:
      return storage::DType::F16;
    case at::kDouble:
      return storage::DType::F64;
    case at::kByte:
      return storage::DType::U8;
    default:
      throw Error(ErrorKind::Internal,
                  {.where = "train.snapshot",
                   .what = "a state of this type cannot be saved",
                   .got = at::toString(tensor.scalar_type())});
  }
}

/// The memory that the store reads or fills: the state itself, or copies of what lies on a device.
std::vector<at::Tensor> host_memory(const std::vector<optim::StateSlice>& states) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(states.size());
  for (const optim::StateSlice& state : states) {
    tensors.push_back(state.data.to(at::kCPU));
  }
  return tensors;
}

std::vector<checkpoint::Slice> to_slices(const std::vector<optim::StateSlice>& states,
                                         const std::vector<at::Tensor>& memory) {
  std::vector<checkpoint::Slice> slices;
  slices.reserve(states.size());
  for (size_t i = 0; i < states.size(); ++i) {
    const optim::StateSlice& state = states[i];
    slices.push_back({.name = state.key,
                      .dtype = dtype_of(state.data),
                      .shape = state.shape,
                      .offset = state.offset,
                      .length = state.data.numel(),
                      .data = memory[i].data_ptr()});
  }
  return slices;
}

Json to_json(const Progress& progress) {
  Json log = Json::array();
  for (const LogEntry& entry : progress.log) {
    log.push_back({entry.step, entry.loss, entry.grad_norm, entry.lr});
  }
  return {{"step", progress.step},
          {"updates", progress.updates},
          {"skipped", progress.skipped},
          {"skipped_in_a_row", progress.skipped_in_a_row},
          {"tokens", progress.tokens},
          {"targets", progress.targets},
          {"log_every", progress.log_every},
          {"log", std::move(log)}};
}

/// A number that was not finite has been written as null.
double number_or_nan(const Json& value) {
  return value.is_number() ? value.get<double>() : std::nan("");
}

Progress to_progress(const Json& json, const std::string& origin) {
  Progress progress;
  progress.step = core::json_int(json, "step", origin);
  progress.updates = core::json_int(json, "updates", origin);
  progress.skipped = core::json_int(json, "skipped", origin);
  progress.skipped_in_a_row = core::json_int(json, "skipped_in_a_row", origin);
  progress.tokens = core::json_int(json, "tokens", origin);
  progress.targets = core::json_int(json, "targets", origin);
  progress.log_every = core::json_int(json, "log_every", origin);
  for (const Json& entry : json["log"]) {
    progress.log.push_back({entry[0].get<int64_t>(),
                            number_or_nan(entry[1]),
                            number_or_nan(entry[2]),
                            number_or_nan(entry[3])});
  }
  return progress;
}

/// Updates a parameter, where they differ: absent otherwise.
std::map<std::string, int64_t> update_counts_of(const Json& extra) {
  const Json* counts = core::json_find(extra, "update_counts");
  return counts == nullptr ? std::map<std::string, int64_t>{}
                           : counts->get<std::map<std::string, int64_t>>();
}

/// trainer_state.json in Hugging Face's shape, for tools that plot it.
std::string trainer_state(const Progress& progress, int64_t total_steps) {
  Json history = Json::array();
  for (const LogEntry& entry : progress.log) {
    history.push_back({{"step", entry.step},
                       {"loss", entry.loss},
                       {"grad_norm", entry.grad_norm},
                       {"learning_rate", entry.lr}});
  }
  return Json{{"global_step", progress.step},
              {"max_steps", total_steps},
              {"num_input_tokens_seen", progress.tokens},
              {"log_history", history}}
             .dump(2) +
         "\n";
}

}  // namespace

struct Snapshots::State {
  checkpoint::Store store;
  const comm::Group& world;
  optim::ShardedParameters& parameters;
  data::TrainStream& batches;
  RunIdentity identity;
  objective::Objective* objective;

  /// The stream's state of all ranks, the same on each.
  Json stream_state() const {
    std::vector<Json> states;
    for (const std::string& text : world.all_gather(std::string_view(batches.state().dump()))) {
      states.push_back(core::parse_json(text, "data position"));
    }
    return data::merge_states(states);
  }

  void require_same(const char* what, const Json& saved, const std::string& now) const {
    const std::string then = saved.is_string() ? saved.get<std::string>() : saved.dump();
    if (then != now) {
      throw Error(
          ErrorKind::Config,
          {.where = "train.resume",
           .what = fmt::format(
               "the checkpoint in {} belongs to another {}", store.folder().string(), what),
           .got = now,
           .allowed = then,
           .hint =
               "another run name (--set name=...), or the configuration that the run began with"});
    }
  }
};

Snapshots::Snapshots(const std::filesystem::path& folder,
                     const comm::Group& world,
                     optim::ShardedParameters& parameters,
                     data::TrainStream& batches,
                     RunIdentity identity,
                     const checkpoint::StoreOptions& options,
                     objective::Objective* objective)
    : state_(new State{checkpoint::Store(folder, world, options),
                       world,
                       parameters,
                       batches,
                       std::move(identity),
                       objective}) {}

Snapshots::~Snapshots() = default;

Saved Snapshots::save(const Progress& progress) {
  const RunIdentity& identity = state_->identity;
  Json extra = {
      {"progress", to_json(progress)},
      {"stream", state_->stream_state()},
      {"objective", state_->objective != nullptr ? state_->objective->state() : Json::object()},
      {"data_digest", state_->batches.digest()},
      {"base_model", identity.base_model},
      {"method", identity.method},
      {"total_steps", identity.total_steps},
      {"config_yaml", identity.config_yaml},
      {"details", core::parse_json(identity.details_json, "details")}};
  if (const auto counts = state_->parameters.update_counts(); !counts.empty()) {
    extra["update_counts"] = counts;
  }
  const std::vector<optim::StateSlice> states = state_->parameters.owned_slices();
  const std::vector<at::Tensor> memory = host_memory(states);
  const checkpoint::SaveReport report =
      state_->store.save(progress.step,
                         to_slices(states, memory),
                         extra,
                         trainer_state(progress, identity.total_steps));
  return {.step = report.step,
          .folder = report.folder.string(),
          .bytes = report.bytes,
          .seconds = report.seconds};
}

void Snapshots::require_space() const {
  int64_t bytes = 0;
  for (const optim::StateSlice& state : state_->parameters.owned_slices()) {
    bytes += static_cast<int64_t>(state.data.nbytes());
  }
  state_->store.require_space(bytes);
}

void Snapshots::forget_after(int64_t step) {
  for (const int64_t saved : state_->store.list()) {
    if (saved > step) {
      state_->store.remove(saved);
    }
  }
}

std::optional<Progress> Snapshots::resume(const std::function<void(int64_t)>& prepare) {
  const std::optional<int64_t> step = state_->store.latest();
  if (!step.has_value()) {
    return std::nullopt;
  }
  const Json extra = state_->store.read_extra(*step);
  state_->require_same("method", extra["method"], state_->identity.method);
  state_->require_same("base model", extra["base_model"], state_->identity.base_model);
  state_->require_same("data set or data settings", extra["data_digest"], state_->batches.digest());
  if (const int64_t then = core::json_int(extra, "total_steps", "checkpoint");
      then != state_->identity.total_steps) {
    core::log_info(fmt::format(
        "the run was {} steps long and is {} now: the learning rate follows the new length",
        then,
        state_->identity.total_steps));
  }
  const Progress progress = to_progress(extra["progress"], state_->store.folder().string());
  if (prepare) {
    prepare(progress.step);
  }
  const std::vector<optim::StateSlice> states = state_->parameters.slices_to_load();
  const std::vector<at::Tensor> memory = host_memory(states);
  state_->store.load(*step, to_slices(states, memory));
  for (size_t i = 0; i < states.size(); ++i) {
    if (!states[i].data.is_cpu()) {
      states[i].data.copy_(memory[i]);
    }
  }
  state_->parameters.after_load();
  state_->parameters.set_update_counts(update_counts_of(extra), progress.updates);
  state_->batches.load_state(extra["stream"]);
  if (const Json* saved = core::json_find(extra, "objective"); saved && state_->objective) {
    state_->objective->load_state(*saved);
  }
  return progress;
}

}  // namespace kamerton::train
