// SPDX-License-Identifier: Apache-2.0
#include "run_privacy.h"

#include "kamerton/core/error.h"
#include "kamerton/storage/digest.h"

namespace kamerton::cli {
namespace {

void refuse_together(const std::string& other, const std::string& why, const std::string& hint) {
  throw core::Error(core::ErrorKind::Config,
                    {.where = "cli.run_privacy",
                     .what = "privacy.unit: record and " + other + " exclude each other: " + why,
                     .hint = hint});
}

}  // namespace

void check_privacy(const RunConfig& config) {
  privacy::validate(config.privacy);
  if (!config.privacy.enabled()) {
    return;
  }
  if (config.data.packing) {
    refuse_together("data.packing",
                    "a packed row mixes records, whose gradients are clipped apart",
                    "data.packing: false");
  }
  if (config.data.group_by_length) {
    refuse_together("data.group_by_length",
                    "a record's place in the order would depend on other records",
                    "data.group_by_length: false");
  }
  if (config.data.text_windows) {
    refuse_together("data.text_windows",
                    "the windows of one text would count as records of their own",
                    "one record a text");
  }
  if (!config.data.sources.empty()) {
    refuse_together("data.sources",
                    "a mixture draws some records more often than once a pass",
                    "data.train, with the files in a list");
  }
  if (config.objective.method != "sft") {
    refuse_together("objective.method: " + config.objective.method,
                    "only the loss of single records is clipped record by record",
                    "objective.method: sft");
  }
}

void check_federated_privacy(const RunConfig& config) {
  if (!config.privacy.enabled()) {
    return;
  }
  if (config.federation.weights != "uniform") {
    refuse_together("federation.weights: " + config.federation.weights,
                    "the number of a site's records or tokens would be told exactly",
                    "federation.weights: uniform");
  }
  if (config.privacy.sampling != "poisson") {
    refuse_together("privacy.sampling: " + config.privacy.sampling + " in a federation",
                    "a pass that a lost round interrupts would count some records twice",
                    "privacy.sampling: poisson");
  }
}

std::optional<train::RecordPrivacy> open_privacy(const RunConfig& config,
                                                 int64_t records,
                                                 const std::string& data_digest,
                                                 int64_t total_steps,
                                                 const comm::Group& world) {
  if (!config.privacy.enabled()) {
    return std::nullopt;
  }
  const std::string identity =
      config::dump(config) + data_digest + std::to_string(total_steps) + config.model.path;
  return train::RecordPrivacy(
      config.privacy,
      {.name = config.name,
       .fingerprint = storage::to_hex(storage::digest_of(identity)).substr(0, 16),
       .records = records,
       .batch_rows = config.data.batch_rows,
       .total_steps = total_steps},
      world);
}

}  // namespace kamerton::cli
