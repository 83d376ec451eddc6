// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/config.h"

#include "kamerton/privacy/certificate.h"

#include "faults.h"

namespace kamerton::privacy {

void describe(config::Fields& fields, RecordPrivacyConfig& config) {
  fields.knob("unit",
              config.unit,
              {.text = "what is protected: nothing, or each record (an example of the data): its "
                       "gradient is clipped, noise hides it in the sum (DP-SGD)",
               .cost = "one backward pass a record (no micro-batches), two whole fp32 gradients of "
                       "what is trained on every rank",
               .choices = {"none", "record"}});
  fields.knob("sampling",
              config.sampling,
              {.text = "how a step's records are chosen. poisson: each one by its own secret coin, "
                       "data.batch_rows on average, which costs least privacy; passes: shuffled "
                       "passes over the data, each of which costs one whole release",
               .choices = {"poisson", "passes"}});
  fields.knob("clip",
              config.clip,
              {.text = "2-norm to which each record's gradient (of its mean loss) is cut",
               .min = 0,
               .min_exclusive = true});
  fields.knob("noise",
              config.noise,
              {.text = "standard deviation of the noise over clip; when absent, the least one that "
                       "keeps the run within epsilon",
               .cost = "more noise, less accuracy",
               .min = 0,
               .min_exclusive = true});
  fields.knob(
      "epsilon",
      config.epsilon,
      {.text = "budget of the data set over all runs: a run that would exceed it is refused",
       .min = 0,
       .min_exclusive = true});
  fields.knob("delta",
              config.delta,
              {.text = "the budget's delta; well below one over the number of records",
               .min = 0,
               .max = 0.5,
               .min_exclusive = true});
  fields.knob(
      "data_set",
      config.data_set,
      {.text = "name of the data set: all runs on it share one ledger, whatever their files "
               "are called"});
  fields.knob("site", config.site, {.text = "name of the place whose records these are"});
  fields.knob("folder",
              config.folder,
              {.text = "where the ledgers and the secret key of the noise are kept: copy neither"});
}

void validate(const RecordPrivacyConfig& config) {
  if (!config.enabled()) {
    return;
  }
  if (!config.epsilon.has_value()) {
    bad_choice("privacy.config",
               "privacy.unit: record needs a budget",
               "privacy.epsilon is not set",
               {},
               "privacy.epsilon: 8");
  }
  if (config.data_set.empty()) {
    bad_choice("privacy.config",
               "privacy.unit: record needs the name of the data set whose budget is spent",
               "privacy.data_set is not set");
  }
  check_member_name(config.data_set);
  check_member_name(config.site);
}

}  // namespace kamerton::privacy
