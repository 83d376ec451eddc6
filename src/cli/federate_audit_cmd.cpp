// SPDX-License-Identifier: Apache-2.0
// kamerton federate audit, kamerton federate ledger: what happened, and what it has cost.
#include <cstdio>

#include "kamerton/core/error.h"
#include "kamerton/privacy/audit_log.h"
#include "kamerton/privacy/budget_ledger.h"
#include "kamerton/privacy/certificate.h"
#include "kamerton/storage/filesystem.h"

#include "command.h"

namespace kamerton::cli {
namespace {

/// "12:ab34...": a number and a digest, as `federate audit` prints them at its end.
privacy::AuditHead parse_head(const std::string& text) {
  const size_t colon = text.find(':');
  const bool number = colon != std::string::npos && colon > 0 && colon < 19 &&
                      text.find_first_not_of("0123456789") == colon;
  const bool digest = number && text.size() == colon + 65 &&
                      text.find_first_not_of("0123456789abcdef", colon + 1) == std::string::npos;
  if (!digest) {
    throw core::Error(core::ErrorKind::Config,
                      {.where = "cli.federate_audit",
                       .what = "--head is not a record's number and digest",
                       .got = "'" + text + "'",
                       .allowed = "NUMBER:64 hexadecimal digits"});
  }
  return {std::stoull(text.substr(0, colon)), text.substr(colon + 1)};
}

int run_audit(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_audit_command();
  const std::string log = required(arguments, "log", self);
  const std::string pem = storage::posix_filesystem().read_file(
      required(arguments, "certificate", self), uint64_t{64} << 10);
  std::vector<privacy::AuditHead> known;
  for (const std::string& head : value_or<std::vector<std::string>>(arguments, "head", {})) {
    known.push_back(parse_head(head));
  }
  const privacy::AuditReport report =
      privacy::verify_audit(log, privacy::read_certificate(pem).key, known);
  std::fputs(privacy::account_of(report).c_str(), stdout);
  return report.good() ? 0 : core::exit_code(core::ErrorKind::Data);
}

int run_ledger(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_ledger_command();
  const auto ledger = privacy::BudgetLedger::read(required(arguments, "ledger", self));
  std::fputs(ledger.to_text().c_str(), stdout);
  return 0;
}

}  // namespace

Command federate_audit_command() {
  return {.name = "federate audit",
          .summary = "verifies an audit log and tells what happened",
          .usage = "kamerton federate audit LOG --certificate MEMBER.pem [--head NUMBER:DIGEST]...",
          .description =
              "Checks every record's digest, signature and place, and the signed end; prints who did "
              "what, when, with which model, what left, and the\n"
              "privacy spent. Ends with code 65 when anything was edited, cut, added or moved. --head: "
              "an end seen elsewhere (the other side's log,\n"
              "an earlier print) that must lie in this log; it finds a log that was cut together with "
              "its signed end.\n\nExamples:\n"
              "  kamerton federate audit site/audit.jsonl --certificate site/site.pem",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()("log", po::value<std::string>(), "the log's file")(
                    "certificate",
                    po::value<std::string>(),
                    "of the member whose log it is (PEM)")(
                    "head",
                    po::value<std::vector<std::string>>(),
                    "NUMBER:DIGEST of a record seen elsewhere; may be repeated");
                positional.add("log", 1);
              },
          .run = run_audit};
}

Command federate_ledger_command() {
  return {.name = "federate ledger",
          .summary = "what has been spent of a data set's privacy",
          .usage = "kamerton federate ledger LEDGER",
          .description =
              "Checks that no line was changed, cut or moved, and prints budget, spent, left, and one "
              "line a release. The ledgers of privacy.unit:\n"
              "record are in privacy.folder, one file a site and data set.\n\nExamples:\n"
              "  kamerton federate ledger privacy/local.ward-notes.jsonl",
          .add_options =
              [](po::options_description& options, po::positional_options_description& positional) {
                options.add_options()("ledger", po::value<std::string>(), "the ledger's file");
                positional.add("ledger", 1);
              },
          .run = run_ledger};
}

}  // namespace kamerton::cli
