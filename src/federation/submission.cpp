// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/submission.h"

#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/core/error.h"

namespace kamerton::federation {
namespace {

constexpr int64_t kMost = int64_t{1} << 53;

[[noreturn]] void refuse_submission(const std::string& field, const std::string& origin) {
  throw core::Error(core::ErrorKind::Data,
                    {.where = "federation.submission",
                     .what = "a value is not possible in " + origin,
                     .got = field});
}

int64_t count(const core::Json& json, const char* field, const std::string& origin) {
  const int64_t value = core::json_int(json, field, origin);
  if (value < 0 || value > kMost) {
    refuse_submission(fmt::format("{} = {}", field, value), origin);
  }
  return value;
}

double number(const core::Json& json, const char* field, const std::string& origin) {
  const double value = core::json_number(json, field, origin);
  if (!std::isfinite(value)) {
    refuse_submission(field, origin);
  }
  return value;
}

}  // namespace

core::Json Submission::to_json() const {
  core::Json json = {{"site", site},
                     {"round", round},
                     {"digest", digest},
                     {"bytes", bytes},
                     {"steps", steps},
                     {"targets", targets},
                     {"examples", examples},
                     {"train_loss", train_loss},
                     {"eval_nll", eval_nll},
                     {"eval_targets", eval_targets},
                     {"eval_correct", eval_correct}};
  if (epsilon > 0) {
    json["epsilon"] = epsilon;
  }
  return json;
}

Submission Submission::from_json(const core::Json& json, const std::string& origin) {
  Submission result;
  result.site = core::json_string(json, "site", origin);
  result.round = count(json, "round", origin);
  result.digest = core::json_string(json, "digest", origin);
  result.bytes = count(json, "bytes", origin);
  result.steps = count(json, "steps", origin);
  result.targets = count(json, "targets", origin);
  result.examples = count(json, "examples", origin);
  result.train_loss = number(json, "train_loss", origin);
  result.eval_nll = number(json, "eval_nll", origin);
  result.eval_targets = count(json, "eval_targets", origin);
  result.eval_correct = count(json, "eval_correct", origin);
  result.epsilon =
      core::json_find(json, "epsilon") != nullptr ? number(json, "epsilon", origin) : 0;
  if (result.site.empty() || result.site.size() > 64 || result.digest.size() > 64) {
    refuse_submission("site or digest", origin);
  }
  return result;
}

}  // namespace kamerton::federation
