// SPDX-License-Identifier: Apache-2.0
#include "data_check.h"

#include <fmt/format.h>

#include "kamerton/core/error.h"
#include "kamerton/core/log.h"
#include "kamerton/data/verify.h"

namespace kamerton::cli {
namespace {

std::string in_one_line(const data::Finding& finding) {
  const std::string place = finding.places.empty() ? "" : finding.places.front() + ": ";
  const std::string more =
      finding.count > 1 ? fmt::format(" ({} of {} looked at)", finding.count, finding.of) : "";
  return fmt::format("{}{}: {}{}", place, finding.rule, finding.what, more);
}

}  // namespace

void check_data(const data::DataConfig& config,
                const data::Dataset& train,
                const data::Dataset* eval) {
  if (config.verify == "off") {
    return;
  }
  const data::VerifyReport report = data::verify_quick(train, eval);
  for (const data::Finding& finding : report.findings) {
    const bool stops = finding.severity == data::Severity::Error ||
                       (finding.severity == data::Severity::Warning && config.verify == "strict");
    if (stops) {
      throw core::Error(
          core::ErrorKind::Data,
          {.where = "cli.data_check",
           .what = in_one_line(finding),
           .hint = finding.remedy + "; `kamerton data verify` shows all; data.verify: off skips "
                                    "this"});
    }
    core::log_warning("data: " + in_one_line(finding));
  }
}

}  // namespace kamerton::cli
