// SPDX-License-Identifier: Apache-2.0
#include "site_work.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"
#include "kamerton/eval/evaluator.h"
#include "kamerton/federation/fault_point.h"
#include "kamerton/federation/vector_file.h"
#include "kamerton/storage/digest.h"
#include "kamerton/storage/filesystem.h"
#include "kamerton/train/step.h"
#include "kamerton/tuning/peft_format.h"

#include "site_work_impl.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;
using core::Error;
using core::ErrorKind;
using federation::RangeFile;
using federation::Task;

bool matches_any(const std::string& name, const std::vector<std::string>& expressions) {
  return std::any_of(expressions.begin(), expressions.end(), [&](const std::string& expression) {
    return std::regex_match(name, std::regex(expression));
  });
}

/// Trainable parameters, without personal ones when `travelling`.
std::vector<federation::TensorSpec> trained(const RunConfig& config,
                                            const model::Decoder& decoder,
                                            bool travelling) {
  std::vector<federation::TensorSpec> tensors;
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    const bool stays = travelling && matches_any(parameter->name, config.federation.local.personal);
    if (parameter->trainable && !stays) {
      tensors.push_back({parameter->name, parameter->shape});
    }
  }
  return tensors;
}

int64_t steps_of(const RunConfig& config, data::TrainStream& batches) {
  if (config.federation.local.steps.has_value()) {
    return *config.federation.local.steps;
  }
  std::vector<int32_t> lengths;
  if (config.data.packing) {
    lengths = batches.dataset().lengths(0, batches.size());
  }
  const int64_t steps = batches.steps_for_epochs(config.federation.local.epochs, lengths);
  batches.use_lengths(std::move(lengths));
  return steps;
}

RangeFile open_model(const std::vector<ReceivedModel>& models, bool stacks) {
  if (models.empty() || stacks) {
    return {};
  }
  const ReceivedModel& last = models.back();
  return RangeFile::open(last.file, 4 * last.facts.elements);
}

}  // namespace

Workplace::Impl::Impl(const RunConfig& run_config, const comm::Group& group)
    : config(site_config(run_config)),
      ranks(group),
      mesh(mesh::build(config.mesh, ranks)),
      bundle(text::load_bundle(config.model.path)),
      tuned(build_tuned(config)),
      layout(trained(config, *tuned.decoder, true),
             federation::exchanged_vectors(config.federation)),
      everything(trained(config, *tuned.decoder, false), 1) {
  model::Decoder& decoder = *tuned.decoder;
  for (const tensor::ParameterPtr& parameter : decoder.parameters()) {
    parameters_by_name[parameter->name] = parameter.get();
  }
  parameters =
      std::make_unique<optim::ShardedParameters>(decoder.units(),
                                                 optim::ShardGroups{mesh.shard(), mesh.replicate()},
                                                 config.optim,
                                                 decoder.dtype(),
                                                 decoder.device());
  decoder.set_hooks(parameters.get());
  weights = model::open_weights(config.model, decoder);
  start = filler(config, tuned, *weights);
  parameters->load(start);
}

std::unique_ptr<OpenSite> Workplace::Impl::open(const SitePlace& place) {
  data::DataConfig data = config.data;
  data.train = place.train;
  data.sources.clear();
  data.prefetch = 0;
  if (!place.eval.empty()) {
    data.eval = place.eval;
  }
  const int64_t positions = tuned.decoder->config().context();
  auto opened = std::make_unique<OpenSite>(
      OpenSite{place, SiteState(place.folder / "state"), nullptr, std::nullopt, nullptr, nullptr});
  OpenSite& site = *opened;  // the objective refers to what it holds
  const auto seed = static_cast<uint64_t>(config.train.seed);
  site.batches = std::make_unique<data::TrainStream>(
      data, seed, bundle, ranks.rank(), ranks.size(), positions);
  if (data::has_eval(data)) {
    site.held_out.emplace(data::open_eval(data, bundle, positions));
  }
  site.rank = place.rank > 0 ? place.rank : config.federation.local.rank;
  site.objective = std::make_unique<RunObjective>(
      config,
      ObjectiveInputs{.tuned = tuned,
                      .parameters = *parameters,
                      .groups = {mesh.shard(), mesh.replicate()},
                      .world = ranks,
                      .train = site.batches->dataset(),
                      .held_out = site.held_out.has_value() ? &*site.held_out : nullptr});
  site.steps = steps_of(config, *site.batches);
  if (first_rank()) {
    storage::posix_filesystem().make_directories(place.folder / "state");
  }
  site.privacy = std::make_unique<SitePrivacy>(config,
                                               PrivateSite{.name = place.name,
                                                           .records = site.batches->size(),
                                                           .data_digest = site.batches->digest(),
                                                           .steps = site.steps,
                                                           .elements = layout.total(),
                                                           .limits = place.limits},
                                               ranks);
  ranks.barrier();
  return opened;
}

eval::LossReport Workplace::Impl::measure(const OpenSite& site) {
  if (!site.held_out.has_value() || objective::evaluates_itself(config.objective)) {
    return {};
  }
  return eval::evaluate_loss(*tuned.decoder, *site.held_out, config.data.micro_batch_rows, ranks);
}

std::string Workplace::Impl::stream_state(const OpenSite& site) const {
  std::vector<core::Json> states;
  for (const std::string& text : ranks.all_gather(std::string_view(site.batches->state().dump()))) {
    states.push_back(core::parse_json(text, "data position"));
  }
  return data::merge_states(states).dump();
}

void Workplace::Impl::restore_stream(OpenSite& site, int64_t before) {
  if (before != site.stream_round) {
    site.batches->load_state(site.state.facts(before)["stream"]);
    site.stream_round = before;
  }
}

train::Parts Workplace::Impl::parts(OpenSite& site) {
  return {.config = config.train,
          .optim_config = config.optim,
          .world = ranks,
          .model = *tuned.decoder,
          .objective = site.objective->get(),
          .parameters = *parameters,
          .batches = *site.batches,
          .dropout = tuned.adapter.has_value() ? &tuned.adapter->dropout_keys() : nullptr,
          .noise = tuned.noise.get(),
          .snapshots = nullptr,
          .begin_step = {},
          .evaluate = {},
          .judge = {},
          .emit = {}};
}

train::StepReport Workplace::Impl::step(OpenSite& site,
                                        train::Parts& run,
                                        int64_t number,
                                        int64_t update) const {
  const int64_t total = site.steps * config.federation.rounds;
  train::RecordPrivacy* const hidden = site.privacy->records();
  return hidden != nullptr ? hidden->run_step(run, number, update, total)
                           : train::run_step(run, number, update, total);
}

RoundStart Workplace::Impl::start_of(const OpenSite& site,
                                     const Task& task,
                                     const std::string& model_digest,
                                     int64_t before) const {
  std::string state;
  if (first_rank() && before >= 0) {
    state = storage::to_hex(storage::digest_of(site.state.facts(before).dump()));
  }
  return {task.round, model_digest, ranks.broadcast(state, 0)};
}

LocalWork Workplace::Impl::train(OpenSite& site,
                                 const Task& task,
                                 int64_t before,
                                 const RangeFile& model) {
  const federation::FederationConfig& federation = config.federation;
  const bool scaffold = federation.method == "scaffold";
  const RangeFile own = scaffold ? site.state.open(before, "control", layout.size()) : RangeFile();
  SiteCorrection correction(layout, federation.local.proximal_mu, scaffold, model, own);
  if (correction.active()) {
    parameters->set_correction([&correction](const tensor::Parameter& parameter,
                                             int64_t offset,
                                             const at::Tensor& values,
                                             at::Tensor gradient) {
      correction(parameter, offset, values, std::move(gradient));
    });
  }
  LocalWork work;
  const int64_t kept = keeps_moments() && before >= 0
                           ? core::json_int(site.state.facts(before), "updates", "state")
                           : 0;
  train::Parts run = parts(site);
  const int64_t total = site.steps * federation.rounds;
  for (int64_t step = 1; step <= site.steps; ++step) {
    const train::StepReport report = this->step(
        site, run, std::min(task.round * site.steps + step, total), kept + work.updates + 1);
    ++work.steps;
    work.updates += report.updates;
    work.targets += report.targets;
    work.loss += report.loss / static_cast<double>(site.steps);
  }
  parameters->set_correction({});
  site.stream_round = task.round;
  if (work.updates == 0) {
    throw Error(ErrorKind::Numeric,
                {.where = "cli.site",
                 .what = "no step of a round gave a finite loss and gradient",
                 .got = fmt::format("site {}, round {}", site.place.name, task.round),
                 .hint = "a lower optim.lr"});
  }
  return work;
}

Workplace::Workplace(const RunConfig& config, const comm::Group& ranks)
    : impl_(new Impl(config, ranks)) {}

Workplace::~Workplace() = default;

const federation::Layout& Workplace::layout() const {
  return impl_->layout;
}

std::string Workplace::describe_model() const {
  return describe(impl_->tuned);
}

const core::Json& Workplace::spent(const std::string& site) const {
  return impl_->sites.at(site)->privacy->spent();
}

void Workplace::open(const SitePlace& place) {
  impl_->sites.emplace(place.name, impl_->open(place));
}

/// What an earlier attempt at this round finished, if its update is still there.
std::optional<federation::Submission> Workplace::Impl::finished(const OpenSite& site,
                                                                const Task& task,
                                                                const std::string& model_digest,
                                                                const fs::path& update) const {
  std::string text;
  if (first_rank() && site.state.complete(task.round) && fs::exists(update)) {
    const core::Json facts = site.state.facts(task.round);
    const core::Json& result = facts["submission"];
    if (core::json_string(facts, "model", "state") == model_digest &&
        federation::file_digest(update) == core::json_string(result, "digest", "state")) {
      text = result.dump();
      site.privacy->set_spent(facts["spent"]);
    }
  }
  text = ranks.broadcast(text, 0);
  if (text.empty()) {
    return std::nullopt;
  }
  return federation::Submission::from_json(core::parse_json(text, "state"), "state");
}

/// Update and state onto the disk; the submission's sizes and digest.
void Workplace::Impl::write(const OpenSite& site,
                            const Task& task,
                            int64_t before,
                            const RangeFile& model,
                            int64_t updates,
                            const fs::path& update_path,
                            federation::Submission& submission) {
  const fs::path scratch_path = site.place.folder / "scratch.f32";
  if (first_rank()) {
    site.state.begin(task.round);
    fs::remove(scratch_path);
    fs::remove(update_path);
  }
  ranks.barrier();
  RangeFile scratch = RangeFile::open_or_create(scratch_path, 4 * layout.total());
  const double norm =
      std::sqrt(ranks.sum(write_slices(site, task, before, model, updates, scratch)));
  ranks.barrier();
  if (site.privacy->hides_site()) {
    site.privacy->charge_update(
        ranks.broadcast(first_rank() ? federation::file_digest(scratch_path) : std::string(), 0));
  }
  const auto codec = federation::make_codec(config.federation, layout.total(), 0);
  submission.bytes =
      federation::encoded_size(*codec, federation::travelling(config.federation, layout.total()));
  RangeFile update = RangeFile::open_or_create(update_path, submission.bytes);
  const double weight = weight_of(submission);
  encode(site, task, before, {site.privacy->clip_factor(norm) * weight, weight}, scratch, update);
  update.sync();
  ranks.barrier();
  submission.digest =
      ranks.broadcast(first_rank() ? federation::file_digest(update_path) : std::string(), 0);
}

double Workplace::Impl::weight_of(const federation::Submission& submission) const {
  if (!federation::weighs_integers(config.federation)) {
    return 1;
  }
  const bool by_targets = config.federation.weights == "targets";
  return federation::integer_weight(
      config.federation,
      static_cast<double>(by_targets ? submission.targets : submission.examples));
}

int64_t Workplace::Impl::updates_before(const OpenSite& site, int64_t before) const {
  return keeps_moments() && before >= 0
             ? core::json_int(site.state.facts(before), "updates", "state")
             : 0;
}

federation::Submission Workplace::work(const std::string& name,
                                       const Task& task,
                                       const std::vector<ReceivedModel>& models,
                                       const fs::path& update_path) {
  Impl& impl = *impl_;
  OpenSite& site = *impl.sites.at(name);
  const std::string model_digest = models.empty() ? "" : models.back().facts.digest;
  if (task.kind == Task::Kind::Train) {
    if (auto done = impl.finished(site, task, model_digest, update_path)) {
      return *done;
    }
  }
  const int64_t before = site.state.last_before(task.round);
  const RangeFile model = open_model(models, impl.stacks());
  if (impl.stacks()) {
    impl.merge_stacks(models);
  }
  impl.load(model, &site, before);
  const eval::LossReport measured = task.measure ? impl.measure(site) : eval::LossReport();
  federation::Submission submission{.site = name,
                                    .round = task.round,
                                    .digest = {},
                                    .eval_nll = measured.nll_sum,
                                    .eval_targets = measured.targets,
                                    .eval_correct = measured.correct};
  if (task.kind != Task::Kind::Train) {
    return submission;
  }
  impl.restore_stream(site, before);
  site.privacy->begin_round(impl.start_of(site, task, model_digest, before));
  const LocalWork done = impl.train(site, task, before, model);
  federation::fault_point("site.trained");
  submission.steps = done.steps;
  submission.targets = done.targets;
  submission.examples = site.batches->size();
  submission.train_loss = done.loss;
  impl.write(site, task, before, model, done.updates, update_path, submission);
  site.privacy->conceal(submission);
  const std::string stream = impl.stream_state(site);
  if (impl.first_rank()) {
    site.state.commit(task.round,
                      {{"model", model_digest},
                       {"updates", impl.updates_before(site, before) + done.updates},
                       {"stream", core::parse_json(stream, "data position")},
                       {"spent", site.privacy->spent()},
                       {"submission", submission.to_json()}});
  }
  federation::fault_point("site.encoded");
  impl.ranks.barrier();
  return submission;
}

void Workplace::write_result(const std::vector<ReceivedModel>& models, const fs::path& folder) {
  Impl& impl = *impl_;
  if (impl.stacks()) {
    impl.merge_stacks(models);
  }
  impl.load(open_model(models, impl.stacks()), nullptr, -1);
  const auto fetch = [&impl](const tensor::Parameter& parameter) {
    return impl.parameters->fetch(parameter);
  };
  if (impl.tuned.adapter.has_value() && !impl.stacks()) {
    tuning::write_peft(
        folder / "adapter", *impl.tuned.adapter, impl.config.model.path, fetch, impl.first_rank());
    return;
  }
  model::save_model((folder / "model").string(),
                    *impl.tuned.decoder,
                    fetch,
                    {.dtype = impl.tuned.decoder->dtype(),
                     .copy_from = impl.config.model.path,
                     .writes = impl.first_rank()});
}

}  // namespace kamerton::cli
