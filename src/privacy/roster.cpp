// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/roster.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/privacy/wire.h"

#include "faults.h"
#include "json_line.h"

namespace kamerton::privacy {
namespace {

constexpr char kRosterWhere[] = "privacy.roster";
constexpr char kPurpose[] = "roster";
constexpr size_t kRosterMaxBytes = size_t{64} << 20;

std::string hex_of(const PublicKey& key) {
  return to_hexadecimal(key.data(), key.size());
}

core::Json json_of(const Roster& roster) {
  core::Json members = core::Json::array();
  for (const Member& member : roster.members) {
    members.push_back({{"id", member.id},
                       {"name", member.name},
                       {"role", name_of(member.role)},
                       {"key", hex_of(member.key)},
                       {"fingerprint", member.fingerprint},
                       {"serial", member.serial},
                       {"not_after", member.not_after},
                       {"revoked_at", member.revoked_at},
                       {"reason", member.reason}});
  }
  core::Json revoked = core::Json::array();
  for (const RevokedCertificate& one : roster.revoked) {
    revoked.push_back(
        {{"serial", one.serial}, {"fingerprint", one.fingerprint}, {"time", one.time}});
  }
  return {{"format", "kamerton roster 1"},
          {"federation", roster.federation},
          {"version", roster.version},
          {"members", std::move(members)},
          {"revoked", std::move(revoked)}};
}

Member member_of(const core::Json& json, const std::string& origin) {
  Member member;
  const int64_t id = core::json_int(json, "id", origin);
  if (id < 0 || id > UINT32_MAX) {
    bad_data(kRosterWhere, origin + " has a number out of range", std::to_string(id));
  }
  member.id = static_cast<uint32_t>(id);
  member.name = core::json_string(json, "name", origin);
  member.role = role_named(core::json_string(json, "role", origin));
  from_hexadecimal(
      core::json_string(json, "key", origin), member.key.data(), member.key.size(), origin);
  member.fingerprint = core::json_string(json, "fingerprint", origin);
  member.serial = core::json_string(json, "serial", origin);
  member.not_after = core::json_int(json, "not_after", origin);
  member.revoked_at = core::json_int(json, "revoked_at", origin);
  member.reason = core::json_string(json, "reason", origin);
  return member;
}

const core::Json& array_of(const core::Json& json, const char* key) {
  const core::Json* found = core::json_find(json, key);
  if (found == nullptr || !found->is_array()) {
    bad_data(kRosterWhere, std::string("a roster's '") + key + "' is not a list");
  }
  return *found;
}

}  // namespace

const Member* Roster::find(std::string_view name) const {
  const auto at = std::find_if(
      members.begin(), members.end(), [&](const Member& member) { return member.name == name; });
  return at == members.end() ? nullptr : &*at;
}

const Member* Roster::find_key(std::string_view fingerprint) const {
  const auto at = std::find_if(members.begin(), members.end(), [&](const Member& member) {
    return member.fingerprint == fingerprint;
  });
  return at == members.end() ? nullptr : &*at;
}

const Member& Roster::admit(const CertificateInfo& certificate, Role role, int64_t now) const {
  const std::string who = std::string(name_of(certificate.role)) + " '" + certificate.name + "'";
  const Member* member = find(certificate.name);
  if (member == nullptr || certificate.federation != federation) {
    refuse(kRosterWhere, who + " is not a member of '" + federation + "'");
  }
  const bool listed = std::any_of(revoked.begin(), revoked.end(), [&](const auto& one) {
    return one.serial == certificate.serial;
  });
  if (member->revoked_at != 0 || listed) {
    refuse(kRosterWhere,
           "the certificate of " + who + " is revoked" +
               (member->reason.empty() ? "" : " (" + member->reason + ")"));
  }
  if (member->fingerprint != certificate.fingerprint) {
    refuse(kRosterWhere, who + " has another key than the roster says");
  }
  if (certificate.role != role || member->role != role) {
    refuse(kRosterWhere, who + " may not act as " + std::string(name_of(role)));
  }
  if (now > certificate.not_after) {
    refuse(kRosterWhere,
           "the certificate of " + who + " has expired",
           time_text(certificate.not_after));
  }
  return *member;
}

std::string Roster::to_signed_text(const SigningKey& authority) const {
  core::Json json = json_of(*this);
  const Signature signature = authority.sign(kPurpose, json.dump());
  json["signature"] = to_hexadecimal(signature.data(), signature.size());
  return json.dump(1) + "\n";
}

Roster Roster::from_signed_text(std::string_view text, const PublicKey& authority) {
  core::Json json =
      core::parse_json(text, "a roster", {.max_bytes = kRosterMaxBytes, .max_depth = 8});
  Signature signature;
  from_hexadecimal(core::json_string(json, "signature", "a roster"),
                   signature.data(),
                   signature.size(),
                   "a roster's signature");
  json.erase("signature");
  if (!verify(authority, kPurpose, json.dump(), signature)) {
    refuse(kRosterWhere, "the roster is not signed by the federation's authority, or was changed");
  }
  Roster roster;
  if (core::json_string(json, "format", "a roster") != "kamerton roster 1") {
    bad_data(kRosterWhere, "a roster has another format", {}, "kamerton roster 1");
  }
  roster.federation = core::json_string(json, "federation", "a roster");
  roster.version = static_cast<uint64_t>(core::json_int(json, "version", "a roster"));
  for (const core::Json& member : array_of(json, "members")) {
    roster.members.push_back(member_of(member, "a member of the roster"));
    if (roster.members.size() > 1 && roster.members.rbegin()[1].id >= roster.members.back().id) {
      bad_data(kRosterWhere, "a roster's members are not in ascending order");
    }
  }
  for (const core::Json& one : array_of(json, "revoked")) {
    roster.revoked.push_back({core::json_string(one, "serial", "a revocation"),
                              core::json_string(one, "fingerprint", "a revocation"),
                              core::json_int(one, "time", "a revocation")});
  }
  return roster;
}

storage::Digest Roster::digest() const {
  WireWriter writer;
  writer.text("kamerton roster members");
  writer.text(federation);
  for (const Member& member : members) {
    if (member.revoked_at == 0) {
      writer.u32(member.id);
      writer.text(member.name);
      writer.text(name_of(member.role));
      writer.raw(member.key);
    }
  }
  return storage::digest_of(writer.bytes());
}

}  // namespace kamerton::privacy
