// SPDX-License-Identifier: Apache-2.0
// What a run's file means for sites and coordinator.
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/config/load.h"
#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"

#include "combinations.h"
#include "run_privacy.h"
#include "site_work.h"

namespace kamerton::cli {
namespace {

namespace fs = std::filesystem;

bool is_lora(const RunConfig& config) {
  return config.tuning.method == "lora";
}

/// Weights and configuration of the base model; not where it lies.
std::string model_digest(const std::string& path) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name == "tokenizer.json" || name.ends_with(".safetensors") ||
        name.ends_with(".gguf")) {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  storage::Hasher hasher;
  for (const fs::path& file : files) {
    hasher.update(file.filename().string());
    hasher.update(storage::to_hex(storage::tree_digest_of_file(file, 1)));
  }
  return storage::to_hex(hasher.finish());
}

[[noreturn]] void refuse_adapter(const std::string& what,
                                 const std::string& why,
                                 const std::string& hint) {
  throw core::Error(core::ErrorKind::Config,
                    {.where = "cli.federate", .what = what, .got = why, .hint = hint});
}

/// Products of factors are summed as plain LoRA has them; a base that starts changed, or is packed,
/// is not what the coordinator's model is added to.
void check_adapter(const RunConfig& config) {
  const tuning::LoraConfig& lora = config.tuning.lora;
  const std::string& adapters = config.federation.adapters;
  if (is_lora(config) && (lora.init == "pissa" || lora.init == "olora")) {
    refuse_adapter("tuning.lora.init " + lora.init + " does not go with a federation",
                   "it takes a part out of the base, of which sites exchange nothing",
                   "tuning.lora.init: default");
  }
  const bool sums_products = adapters == "svd" || adapters == "stack";
  if (is_lora(config) && sums_products &&
      (lora.use_dora || !lora.rank_pattern.empty() || !lora.alpha_pattern.empty())) {
    refuse_adapter(
        "federation.adapters " + adapters + " does not go with DoRA or patterns of rank and alpha",
        "the update is summed as alpha / r B A of one rank and scale",
        "federation.adapters: ffa, or plain LoRA");
  }
  const auto above = [&](int64_t rank) { return rank > lora.r; };
  const bool ranks = config.federation.local.rank > 0 ||
                     std::any_of(config.federation.sites.begin(),
                                 config.federation.sites.end(),
                                 [](const auto& site) { return site.rank > 0; });
  if (ranks && !(is_lora(config) && sums_products)) {
    refuse_adapter("federation.local.rank needs tuning.method lora and adapters stack or svd",
                   "only sums of products allow ranks that differ",
                   "federation.adapters: svd");
  }
  if (above(config.federation.local.rank) ||
      std::any_of(config.federation.sites.begin(),
                  config.federation.sites.end(),
                  [&](const auto& site) { return above(site.rank); })) {
    refuse_adapter("federation.local.rank is above tuning.lora.r",
                   fmt::format("tuning.lora.r {}", lora.r),
                   "the largest rank of any site as tuning.lora.r");
  }
  if (config.tuning.quantize != "none") {
    refuse_adapter("tuning.quantize does not go with a federation",
                   "the packed base differs from what the coordinator's model is added to",
                   "tuning.quantize: none");
  }
}

}  // namespace

RunConfig site_config(RunConfig config) {
  config.optim.sensitivity = false;  // sites keep all ranks: their updates are added up
  if (is_lora(config) && config.federation.adapters == "ffa") {
    config.tuning.freeze.emplace_back(".*\\.lora_A\\.weight");
  }
  return config;
}

void validate_federation(const RunConfig& config) {
  federation::validate(
      config.federation,
      {.lora = is_lora(config),
       .optimizer = config.optim.algorithm,
       .momentum = config.optim.algorithm == "sgd" ? config.optim.momentum : 0.0,
       .schedule = config.optim.schedule,
       .warmup_steps = config.optim.warmup_steps.value_or(config.optim.warmup_ratio > 0 ? 1 : 0)});
  if (objective::generates(config.objective)) {
    throw core::Error(
        core::ErrorKind::Config,
        {.where = "cli.federate",
         .what = "objective.method " + config.objective.method + " does not go with a federation",
         .got = "it learns from answers that the model generates, whose rewards sites "
                "would have to share",
         .hint = "objective.method: sft, dpo, kto ..."});
  }
  refuse_in_federation(config);
  check_federated_privacy(config);
  check_adapter(config);
  if (is_lora(config) && config.tuning.adapter.has_value() &&
      config.federation.adapters == "stack") {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.federate",
                       .what = "tuning.adapter does not go with federation.adapters stack",
                       .got = "every round starts from a new adapter",
                       .hint = "merge it first: kamerton export --merge"});
  }
}

std::string common_digest(const RunConfig& config) {
  RunConfig common = config;
  common.name.clear();
  common.output.clear();
  common.model.path = model_digest(config.model.path);
  common.model.device.clear();
  common.data.train.clear();
  common.data.eval.clear();
  common.data.index_dir.reset();
  common.data.store_dir.clear();
  common.data.prefetch = 0;
  common.data.micro_batch_rows = 0;
  common.mesh = {};
  common.optim.zero_stage = 0;
  common.telemetry = {};
  common.train.checkpoint = {};
  common.train.watchdog_s = 0;
  common.privacy.data_set.clear();
  common.privacy.site.clear();
  common.privacy.folder.clear();
  common.federation.local.rank = 0;
  common.federation.sites.clear();
  common.federation.partition = {};
  common.federation.ranks_per_site = 1;
  common.federation.keep_models = 0;
  return storage::to_hex(storage::digest_of(config::dump(common)));
}

}  // namespace kamerton::cli
