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

privacy::PublicKey key_of(const std::string& certificate) {
  return privacy::read_certificate(
             storage::posix_filesystem().read_file(certificate, uint64_t{64} << 10))
      .key;
}

/// The ends of this log that the other side has recorded, once its own log is found whole.
std::vector<privacy::AuditHead> heads_elsewhere(const po::variables_map& arguments,
                                                const std::string& log,
                                                const privacy::PublicKey& key) {
  if (arguments.count("other") == 0) {
    return {};
  }
  static const Command self = federate_audit_command();
  const std::string other = required(arguments, "other", self);
  const privacy::AuditReport seen =
      privacy::verify_audit(other, key_of(required(arguments, "other-certificate", self)));
  if (!seen.good()) {
    throw core::Error(core::ErrorKind::Data,
                      {.where = "cli.federate_audit",
                       .what = "the other log does not verify, so nothing is taken from it",
                       .got = other + ": " + seen.faults.front()});
  }
  const privacy::AuditReport own = privacy::verify_audit(log, key);
  if (own.records.empty()) {
    return {};
  }
  const auto heads = privacy::heads_seen(seen, own.records.front().who);
  std::printf("%zu ends of this log are recorded in %s\n\n", heads.size(), other.c_str());
  return heads;
}

int run_audit(const po::variables_map& arguments, comm::Session*) {
  static const Command self = federate_audit_command();
  const std::string log = required(arguments, "log", self);
  const privacy::PublicKey key = key_of(required(arguments, "certificate", self));
  std::vector<privacy::AuditHead> known;
  for (const std::string& head : value_or<std::vector<std::string>>(arguments, "head", {})) {
    known.push_back(privacy::parse_head(head));
  }
  for (const privacy::AuditHead& head : heads_elsewhere(arguments, log, key)) {
    known.push_back(head);
  }
  const privacy::AuditReport report = privacy::verify_audit(log, key, known);
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
  return {
      .name = "federate audit",
      .summary = "verifies an audit log and tells what happened",
      .usage =
          "kamerton federate audit LOG --certificate MEMBER.pem [--head NUMBER:DIGEST]... "
          "[--other LOG --other-certificate PEM]",
      .description =
          "Checks every record's digest, signature and place, and the signed end; prints who did "
          "what, when, with which model, what left, and the\n"
          "privacy spent. Ends with code 65 when anything was edited, cut, added or moved. --head: "
          "an end seen elsewhere (the other side's log,\n"
          "an earlier print) that must lie in this log; it finds a log that was cut together with "
          "its signed end. --other: the other side's log; coordinator and sites exchange their "
          "ends "
          "every round and write them down, so that\n"
          "whoever rewrites a log, even with its own key, is found out by the "
          "other's.\n\nExamples:\n"
          "  kamerton federate audit runs/tickets/site/audit.jsonl --certificate "
          "federation/north/member.pem\n"
          "  kamerton federate audit runs/tickets/coordinator/audit.jsonl --certificate "
          "federation/authority/coordinator/member.pem \\\n    --other north/audit.jsonl "
          "--other-certificate federation/north/member.pem",
      .add_options =
          [](po::options_description& options, po::positional_options_description& positional) {
            options.add_options()("log", po::value<std::string>(), "the log's file")(
                "certificate", po::value<std::string>(), "of the member whose log it is (PEM)")(
                "head",
                po::value<std::vector<std::string>>(),
                "NUMBER:DIGEST of a record seen elsewhere; may be repeated")(
                "other", po::value<std::string>(), "the other side's log")(
                "other-certificate", po::value<std::string>(), "of its owner (PEM)");
            positional.add("log", 1);
          },
      .run = run_audit};
}

Command federate_ledger_command() {
  return {
      .name = "federate ledger",
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
