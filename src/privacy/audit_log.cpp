// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/audit_log.h"

#include <nlohmann/json.hpp>

#include "kamerton/storage/filesystem.h"

#include "audit_line.h"
#include "faults.h"
#include "json_line.h"
#include "locked_file.h"

namespace kamerton::privacy {
namespace {

constexpr char kAuditLogWhere[] = "privacy.audit_log";

}  // namespace

struct AuditLog::State {
  std::filesystem::path path;
  SigningKey key;
  std::string who;
  LockedFile file;
  AuditHead head;
  std::function<int64_t()> now = now_seconds;

  void write_head() const {
    const Signature signature = key.sign(kHeadPurpose, head_text(head));
    const core::Json json = {{"records", head.records},
                             {"digest", head.digest},
                             {"signature", to_hexadecimal(signature.data(), signature.size())}};
    write_private_file(head_path(path), json.dump() + "\n");
  }
};

AuditLog::AuditLog(const std::filesystem::path& path, const SigningKey& key, std::string who)
    : state_(std::make_unique<State>(State{
          path, key, std::move(who), LockedFile(path, LockedFile::Mode::Create, false), {}})) {
  State& state = *state_;
  const std::string text = state.file.read(kMaxAuditBytes);
  const Lines lines = lines_of(text);
  const size_t torn = text.size() - lines.bytes;
  if (torn > 0) {
    state.file.truncate(lines.bytes);
  }
  const AuditReport report =
      verify_audit_text(text.substr(0, lines.bytes), path, key.public_key(), {});
  if (!report.good()) {
    bad_data(kAuditLogWhere,
             "'" + path.string() + "' does not verify, and nothing is added to it",
             report.faults.front());
  }
  state.head = report.head;
  if (torn > 0) {
    append("recovered", {{"unfinished_bytes", torn}});
  } else if (state.head.records > 0) {
    state.write_head();  // a crash may have come between the record and its head
  }
}

AuditLog::~AuditLog() = default;
AuditLog::AuditLog(AuditLog&&) noexcept = default;
AuditLog& AuditLog::operator=(AuditLog&&) noexcept = default;

void AuditLog::append(std::string_view event, const core::Json& detail) {
  State& state = *state_;
  AuditRecord record{.number = state.head.records + 1,
                     .time = state.now(),
                     .who = state.who,
                     .event = std::string(event),
                     .detail = detail.dump(-1, ' ', false, core::Json::error_handler_t::replace),
                     .digest = {}};
  const std::string line = audit_line(record, state.head.digest, state.key);
  if (line.size() > kMaxAuditLine) {
    throw core::Error(core::ErrorKind::Internal,
                      {.where = kAuditLogWhere, .what = "an audit record is too long"});
  }
  state.file.append(line + "\n");
  state.head = {record.number, line_digest(line)};
  state.write_head();
}

AuditHead AuditLog::head() const {
  return state_->head;
}

void AuditLog::set_clock(std::function<int64_t()> now) {
  state_->now = std::move(now);
}

}  // namespace kamerton::privacy
