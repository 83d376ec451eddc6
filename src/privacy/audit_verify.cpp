// SPDX-License-Identifier: Apache-2.0
#include <map>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "kamerton/storage/filesystem.h"

#include "audit_line.h"
#include "faults.h"
#include "json_line.h"
#include "locked_file.h"

namespace kamerton::privacy {
namespace {

core::Json json_of(const AuditRecord& record, const std::string& previous) {
  return {{"number", record.number},
          {"time", record.time},
          {"who", record.who},
          {"event", record.event},
          {"detail", core::parse_json(record.detail, "an audit record's detail")},
          {"previous", previous}};
}

Signature signature_of(const core::Json& json, const std::string& origin) {
  Signature signature;
  from_hexadecimal(core::json_string(json, "signature", origin),
                   signature.data(),
                   signature.size(),
                   origin + ": the signature");
  return signature;
}

/// The record of a line, or what is wrong with it.
AuditRecord read_line(std::string_view line,
                      const std::string& origin,
                      const AuditHead& before,
                      const PublicKey& key) {
  constexpr char kWhere[] = "privacy.audit";
  const core::Json json = core::parse_json(line, origin, {.max_bytes = kMaxAuditLine});
  const int64_t number = core::json_int(json, "number", origin);
  const core::Json* detail = core::json_find(json, "detail");
  AuditRecord record{.number = static_cast<uint64_t>(number),
                     .time = core::json_int(json, "time", origin),
                     .who = core::json_string(json, "who", origin),
                     .event = core::json_string(json, "event", origin),
                     .detail = detail == nullptr ? "null" : detail->dump(),
                     .digest = line_digest(line)};
  const std::string previous = core::json_string(json, "previous", origin);
  const Signature signature = signature_of(json, origin);
  // The line is rebuilt from what was read: what is signed is all that there is.
  core::Json rebuilt = json_of(record, previous);
  const bool signed_by = verify(key, kRecordPurpose, rebuilt.dump(), signature);
  rebuilt["signature"] = to_hexadecimal(signature.data(), signature.size());
  if (!signed_by || rebuilt.dump() != line) {
    bad_data(kWhere, origin + " was changed, or is not signed by this key");
  }
  if (record.number != before.records + 1 || previous != before.digest) {
    bad_data(kWhere,
             origin + " does not follow record " + std::to_string(before.records) +
                 ": records were cut, added or moved",
             std::to_string(number));
  }
  return record;
}

std::optional<AuditHead> read_head(const std::filesystem::path& path,
                                   const PublicKey& key,
                                   std::vector<std::string>& faults) {
  const std::filesystem::path place = head_path(path);
  const auto size = storage::posix_filesystem().file_size(place);
  if (!size) {
    return std::nullopt;
  }
  try {
    const std::string origin = "'" + place.string() + "'";
    const core::Json json =
        core::parse_json(storage::posix_filesystem().read_file(place, 4096), origin);
    const AuditHead head{static_cast<uint64_t>(core::json_int(json, "records", origin)),
                         core::json_string(json, "digest", origin)};
    if (!verify(key, kHeadPurpose, head_text(head), signature_of(json, origin))) {
      bad_data("privacy.audit", origin + " was changed, or is not signed by this key");
    }
    return head;
  } catch (const core::Error& error) {
    faults.emplace_back(error.what());
    return std::nullopt;
  }
}

bool holds(const std::vector<AuditRecord>& records, const AuditHead& head) {
  return head.records == 0 ||
         (head.records <= records.size() && records[head.records - 1].digest == head.digest);
}

/// " of ward-notes (record)"; "" where the record does not name both.
std::string spent_of(const core::Json& detail) {
  const core::Json* data_set = core::json_find(detail, "data_set");
  const core::Json* unit = core::json_find(detail, "unit");
  const bool named =
      data_set != nullptr && data_set->is_string() && unit != nullptr && unit->is_string();
  return named ? fmt::format(" of {} ({})", data_set->get<std::string>(), unit->get<std::string>())
               : "";
}

}  // namespace

std::filesystem::path head_path(const std::filesystem::path& path) {
  auto place = path;
  place += ".head";
  return place;
}

std::string head_text(const AuditHead& head) {
  return std::to_string(head.records) + ":" + head.digest;
}

AuditHead parse_head(std::string_view text) {
  const size_t colon = text.find(':');
  const bool number = colon != std::string_view::npos && colon > 0 && colon < 19 &&
                      text.find_first_not_of("0123456789") == colon;
  const bool digest =
      number && text.size() == colon + 65 &&
      text.find_first_not_of("0123456789abcdef", colon + 1) == std::string_view::npos;
  if (!digest) {
    bad_data("privacy.audit",
             "not the end of an audit log",
             "'" + std::string(text.substr(0, 100)) + "'",
             "NUMBER:64 hexadecimal digits");
  }
  return {std::stoull(std::string(text.substr(0, colon))), std::string(text.substr(colon + 1))};
}

core::Json head_seen(const std::string& whose, std::string_view text) {
  return {{"of", whose}, {"head", head_text(parse_head(text))}};
}

std::vector<AuditHead> heads_seen(const AuditReport& report, std::string_view whose) {
  std::vector<AuditHead> heads;
  for (const AuditRecord& record : report.records) {
    if (record.event != audit::kHeadSeen) {
      continue;
    }
    const core::Json detail = core::parse_json(record.detail, "an audit record's detail");
    if (core::json_string(detail, "of", "an audit record") == whose) {
      heads.push_back(parse_head(core::json_string(detail, "head", "an audit record")));
    }
  }
  return heads;
}

std::string audit_line(const AuditRecord& record,
                       const std::string& previous,
                       const SigningKey& key) {
  core::Json json = json_of(record, previous);
  const Signature signature = key.sign(kRecordPurpose, json.dump());
  json["signature"] = to_hexadecimal(signature.data(), signature.size());
  return json.dump();
}

AuditReport verify_audit_text(std::string_view text,
                              const std::filesystem::path& path,
                              const PublicKey& key,
                              const std::vector<AuditHead>& known) {
  AuditReport report;
  const Lines lines = lines_of(text);
  try {
    for (size_t i = 0; i < lines.whole.size(); ++i) {
      const std::string origin = "record " + std::to_string(i + 1);
      report.records.push_back(read_line(lines.whole[i], origin, report.head, key));
      report.head = {i + 1, report.records.back().digest};
    }
    if (lines.bytes < text.size()) {
      report.faults.push_back("the last record is unfinished: a crash, or a cut");
    }
  } catch (const core::Error& error) {
    report.faults.emplace_back(error.what());
  }
  const std::optional<AuditHead> end = read_head(path, key, report.faults);
  if (!end && report.faults.empty() && report.head.records > 1) {
    report.faults.push_back("the signed end ('" + head_path(path).string() + "') is missing");
  }
  if (end && !holds(report.records, *end)) {
    report.faults.push_back(fmt::format(
        "the signed end names record {} with digest {}, which is not in the log: its end was cut",
        end->records,
        end->digest));
  }
  for (const AuditHead& head : known) {
    if (!holds(report.records, head)) {
      report.faults.push_back(
          fmt::format("record {} with digest {} was seen elsewhere and is not in the log",
                      head.records,
                      head.digest));
    }
  }
  return report;
}

AuditReport verify_audit(const std::filesystem::path& path,
                         const PublicKey& key,
                         const std::vector<AuditHead>& known) {
  std::string text;
  // Read without the lock: a running site holds it for as long as it lives, and lines only grow.
  text = storage::posix_filesystem().read_file(path, kMaxAuditBytes);
  return verify_audit_text(text, path, key, known);
}

std::string account_of(const AuditReport& report) {
  std::string text;
  std::map<std::string, uint64_t> counts;
  uint64_t bytes = 0;
  std::map<std::string, std::string> spent;  ///< by what it was spent of: the newest
  for (const AuditRecord& record : report.records) {
    ++counts[record.event];
    text += fmt::format(
        "{:>6}  {}  {}  {}", record.number, time_text(record.time), record.who, record.event);
    const core::Json detail = core::parse_json(record.detail, "an audit record's detail");
    if (detail.is_object()) {
      for (const auto& [key, value] : detail.items()) {
        text += fmt::format(
            "  {}={}", key, value.is_string() ? value.get<std::string>() : value.dump());
      }
      if (const core::Json* sent = core::json_find(detail, "bytes");
          sent != nullptr && sent->is_number_unsigned()) {
        bytes += sent->get<uint64_t>();
      }
      if (const core::Json* epsilon = core::json_find(detail, "epsilon_after");
          epsilon != nullptr && epsilon->is_number()) {
        spent[spent_of(detail)] = fmt::format("{:.4f}", epsilon->get<double>());
      }
    }
    text += '\n';
  }
  text += fmt::format("\n{} records, end {}\n", report.head.records, report.head.digest);
  for (const auto& [event, count] : counts) {
    text += fmt::format("{:>6}  {}\n", count, event);
  }
  text += fmt::format("{} bytes are recorded as sent\n", bytes);
  for (const auto& [what, epsilon] : spent) {
    text += fmt::format("privacy spent{}: epsilon {}\n", what, epsilon);
  }
  for (const std::string& fault : report.faults) {
    text += "FAULT: " + fault + "\n";
  }
  if (report.good()) {
    text += "the log is whole: every record follows the one before and is signed\n";
  }
  return text;
}

}  // namespace kamerton::privacy
