// SPDX-License-Identifier: Apache-2.0
// A record of what happened that cannot be changed afterwards without being noticed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/core/json.h"
#include "kamerton/privacy/keys.h"

namespace kamerton::privacy {

/// The end of a log at some moment, signed: kept elsewhere (the other side's log, a printed page)
/// it proves that nothing before it was cut.
struct AuditHead {
  uint64_t records = 0;
  std::string digest;  ///< of the last record, 64 hexadecimal digits
};

/// Events that a federated run writes; others are allowed.
namespace audit {
inline constexpr char kJoin[] = "join";
inline constexpr char kModelReceived[] = "model received";
inline constexpr char kUpdateSent[] = "update sent";
inline constexpr char kRefusal[] = "refusal";
inline constexpr char kUnmask[] = "unmask request";
inline constexpr char kLedger[] = "privacy spent";
inline constexpr char kPolicy[] = "policy decision";
inline constexpr char kCertificate[] = "certificate";
inline constexpr char kRound[] = "round committed";
inline constexpr char kAbort[] = "abort";
inline constexpr char kHeadSeen[] = "head seen";
}  // namespace audit

/// JSON lines, appended and fsynced one by one; each carries the BLAKE2b digest of the one before
/// and an Ed25519 signature; "<path>.head" holds the signed end. One writer at a time (locked; a
/// second one is refused with ErrorKind::Output).
class AuditLog {
 public:
  /// Creates the file or goes on with it. Throws ErrorKind::Data when what is there does not verify
  /// under this key. A last line that a crash left unfinished is cut off, and a record says so.
  AuditLog(const std::filesystem::path& path, const SigningKey& key, std::string who);
  ~AuditLog();
  AuditLog(AuditLog&&) noexcept;
  AuditLog& operator=(AuditLog&&) noexcept;

  /// On the disk when it returns. detail: an object; never text of the data.
  void append(std::string_view event, const core::Json& detail);
  AuditHead head() const;
  /// Seconds since 1970; tests turn it.
  void set_clock(std::function<int64_t()> now);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct AuditRecord {
  uint64_t number = 0;  ///< from 1
  int64_t time = 0;
  std::string who;
  std::string event;
  std::string detail;  ///< JSON
  std::string digest;
};

struct AuditReport {
  std::vector<AuditRecord> records;  ///< up to the first fault
  std::vector<std::string> faults;   ///< empty: the log is whole
  AuditHead head;
  bool good() const noexcept { return faults.empty(); }
};

/// Checks every digest, signature, number and the head. key: whose log it must be. known: heads
/// seen elsewhere that must lie in this log. Finds any edit, insertion, reordering and cut; a cut
/// of the end together with an old ".head" only through `known`. Throws ErrorKind::Data when the
/// file is missing or has a line longer than 1 MiB.
AuditReport verify_audit(const std::filesystem::path& path,
                         const PublicKey& key,
                         const std::vector<AuditHead>& known = {});

/// Who, when, which model, what left the site, privacy spent: one line a record, then totals.
/// "12:ab34...", as it is printed, sent and typed.
std::string head_text(const AuditHead& head);
/// ErrorKind::Data for anything else.
AuditHead parse_head(std::string_view text);
/// What an owner of a log writes down of another's end: {"of": whose, "head": head_text}. Refuses a
/// text that is none.
core::Json head_seen(const std::string& whose, std::string_view text);
/// The ends of `whose` log that a log has recorded (kHeadSeen).
std::vector<AuditHead> heads_seen(const AuditReport& report, std::string_view whose);

std::string account_of(const AuditReport& report);

}  // namespace kamerton::privacy
