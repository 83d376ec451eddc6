// SPDX-License-Identifier: Apache-2.0
#include "kamerton/privacy/authority.h"

#include <algorithm>

#include "kamerton/storage/filesystem.h"

#include "faults.h"
#include "invite_book.h"
#include "issue.h"
#include "json_line.h"
#include "locked_file.h"

namespace kamerton::privacy {
namespace {

constexpr char kAuthorityWhere[] = "privacy.authority";
constexpr uint64_t kAuthorityMaxBytes = uint64_t{64} << 20;

std::filesystem::path key_path(const std::filesystem::path& folder) {
  return folder / "authority.key";
}
std::filesystem::path certificate_path(const std::filesystem::path& folder) {
  return folder / "authority.pem";
}
std::filesystem::path roster_path(const std::filesystem::path& folder) {
  return folder / "roster.json";
}
std::filesystem::path invites_path(const std::filesystem::path& folder) {
  return folder / "invites.json";
}
std::filesystem::path revoked_path(const std::filesystem::path& folder) {
  return folder / "revoked.pem";
}

std::string read_text(const std::filesystem::path& path) {
  return storage::posix_filesystem().read_file(path, kAuthorityMaxBytes);
}

/// One change at a time, over processes.
LockedFile lock_of(const std::filesystem::path& folder) {
  return LockedFile(folder / "lock", LockedFile::Mode::Create);
}

void check_days(int64_t days) {
  if (days < 1 || days > 36500) {
    bad_choice(kAuthorityWhere, "a certificate is good for 1 to 36500 days", std::to_string(days));
  }
}

void check_role(Role role) {
  if (role == Role::Authority) {
    refuse(kAuthorityWhere, "a federation has one authority: the role is not given away");
  }
}

std::vector<Invite> invites_in(const std::filesystem::path& folder) {
  return invites_from_text(read_text(invites_path(folder)));
}

void revoke_certificate(Roster& roster, const Member& member, int64_t now) {
  roster.revoked.push_back({member.serial, member.fingerprint, now});
}

/// The member's entry now carries this certificate; a new member gets the next number.
void enter(Roster& roster, const CertificateInfo& info) {
  auto at = std::find_if(roster.members.begin(), roster.members.end(), [&](const Member& m) {
    return m.name == info.name;
  });
  if (at == roster.members.end()) {
    const uint32_t id = roster.members.empty() ? 1 : roster.members.back().id + 1;
    at = roster.members.insert(at, {.id = id, .name = info.name, .role = info.role});
  }
  Member& member = *at;
  member.key = info.key;
  member.fingerprint = info.fingerprint;
  member.serial = info.serial;
  member.not_after = info.not_after;
}

}  // namespace

Authority Authority::create(const std::filesystem::path& folder,
                            const std::string& federation,
                            int64_t now,
                            int64_t days) {
  check_member_name(federation);
  check_days(days);
  storage::posix_filesystem().make_directories(folder);
  const LockedFile lock = lock_of(folder);
  Authority authority(folder, make_key_file(key_path(folder)));
  authority.federation_ = federation;
  authority.certificate_ = issue_root(authority.key_, federation, now, days, system_random());
  write_private_file(invites_path(folder), invites_to_text({}));
  authority.publish(Roster{.federation = federation, .version = 1, .members = {}, .revoked = {}},
                    now);
  // Last: with it the folder is an authority.
  storage::write_file_atomic(
      storage::posix_filesystem(), certificate_path(folder), authority.certificate_);
  return authority;
}

Authority Authority::open(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(key_path(folder))) {
    bad_data(kAuthorityWhere,
             "there is no authority in '" + folder.string() + "'",
             "no " + key_path(folder).string(),
             "a folder that kamerton federate init NAME --authority DIR has made");
  }
  Authority authority(folder, read_key_file(key_path(folder)));
  authority.certificate_ = read_text(certificate_path(folder));
  const CertificateInfo info = read_certificate(authority.certificate_);
  if (info.role != Role::Authority || info.key != authority.key_.public_key()) {
    bad_data(kAuthorityWhere,
             "the certificate in '" + folder.string() + "' is not that of its key");
  }
  authority.federation_ = info.federation;
  return authority;
}

void Authority::publish(const Roster& roster, int64_t now) const {
  auto& files = storage::posix_filesystem();
  // The roster decides; TLS libraries read the CRL as a second fence.
  storage::write_file_atomic(files, roster_path(folder_), roster.to_signed_text(key_));
  storage::write_file_atomic(
      files, revoked_path(folder_), issue_revocations(key_, certificate_, roster, now));
}

Roster Authority::roster() const {
  return Roster::from_signed_text(read_text(roster_path(folder_)), key_.public_key());
}

std::string Authority::revocation_list() const {
  return read_text(revoked_path(folder_));
}

std::string Authority::invite(const std::string& name, Role role, int64_t now, int64_t expires) {
  check_member_name(name);
  check_role(role);
  if (expires <= now) {
    bad_choice(kAuthorityWhere, "an invitation must end in the future", time_text(expires));
  }
  const LockedFile lock = lock_of(folder_);
  if (roster().find(name) != nullptr) {
    refuse(kAuthorityWhere,
           "'" + name + "' is a member already, or was one: names are not used twice");
  }
  std::vector<Invite> invites = invites_in(folder_);
  std::erase_if(invites, [&](const Invite& one) { return one.used_at == 0 && one.expires < now; });
  const Secret secret = system_random().secret();
  invites.push_back({token_digest(secret), name, role, expires, 0});
  write_private_file(invites_path(folder_), invites_to_text(invites));
  return token_text(secret, read_certificate(certificate_).fingerprint);
}

std::string Authority::join(std::string_view token,
                            std::string_view request,
                            int64_t now,
                            int64_t days) {
  const RequestInfo wanted = read_request(request);
  const std::string digest = token_digest(read_token(token).secret);
  const LockedFile lock = lock_of(folder_);
  std::vector<Invite> invites = invites_in(folder_);
  const auto at = std::find_if(invites.begin(), invites.end(), [&](const Invite& one) {
    return one.token_digest == digest;
  });
  if (at == invites.end()) {
    refuse(kAuthorityWhere, "this invitation is not one of '" + federation_ + "'");
  }
  if (at->used_at != 0) {
    refuse(kAuthorityWhere, "this invitation was used before", time_text(at->used_at));
  }
  if (at->expires < now) {
    refuse(kAuthorityWhere, "this invitation has expired", time_text(at->expires));
  }
  if (at->name != wanted.name || at->role != wanted.role) {
    refuse(kAuthorityWhere,
           "this invitation is for another name or role",
           std::string(name_of(wanted.role)) + " '" + wanted.name + "'",
           std::string(name_of(at->role)) + " '" + at->name + "'");
  }
  at->used_at = now;
  write_private_file(invites_path(folder_), invites_to_text(invites));
  return sign_request(wanted, now, days);
}

std::string Authority::issue(std::string_view request, int64_t now, int64_t days) {
  const RequestInfo wanted = read_request(request);
  const LockedFile lock = lock_of(folder_);
  return sign_request(wanted, now, days);
}

std::string Authority::sign_request(const RequestInfo& request, int64_t now, int64_t days) {
  check_days(days);
  check_role(request.role);
  Roster members = roster();
  if (request.federation != federation_) {
    refuse(kAuthorityWhere,
           "the request is for another federation",
           "'" + request.federation + "'",
           "'" + federation_ + "'");
  }
  if (members.find(request.name) != nullptr) {
    refuse(kAuthorityWhere,
           "'" + request.name + "' is a member already, or was one: names are not used twice");
  }
  for (const Member& member : members.members) {
    if (member.key == request.key) {
      refuse(kAuthorityWhere, "the key of '" + member.name + "' cannot be that of another member");
    }
  }
  const std::string pem = issue_member(key_, certificate_, request, now, days, system_random());
  enter(members, read_certificate(pem));
  ++members.version;
  publish(members, now);
  return pem;
}

std::string Authority::renew(std::string_view old_certificate,
                             std::string_view request,
                             const Signature& proof,
                             int64_t now,
                             int64_t days) {
  check_days(days);
  const CertificateInfo old = verify_certificate(old_certificate, certificate_, now);
  const RequestInfo wanted = read_request(request);
  const LockedFile lock = lock_of(folder_);
  Roster members = roster();
  const Member member = members.admit(old, old.role, now);
  if (!verify(old.key, "renew", request, proof)) {
    refuse(kAuthorityWhere, "the renewal of '" + old.name + "' is not signed with its present key");
  }
  if (wanted.name != old.name || wanted.role != old.role || wanted.federation != federation_) {
    refuse(kAuthorityWhere, "a renewal keeps name, role and federation");
  }
  for (const Member& other : members.members) {
    if (other.key == wanted.key && other.name != old.name) {
      refuse(kAuthorityWhere, "the key of '" + other.name + "' cannot be that of another member");
    }
  }
  if (wanted.key != old.key) {
    revoke_certificate(members, member, now);
  }
  const std::string pem = issue_member(key_, certificate_, wanted, now, days, system_random());
  enter(members, read_certificate(pem));
  ++members.version;
  publish(members, now);
  return pem;
}

void Authority::revoke(const std::string& name, const std::string& reason, int64_t now) {
  const LockedFile lock = lock_of(folder_);
  Roster members = roster();
  const auto at = std::find_if(members.members.begin(),
                               members.members.end(),
                               [&](const Member& m) { return m.name == name; });
  if (at == members.members.end()) {
    bad_choice(kAuthorityWhere, "there is no member of this name", "'" + name + "'");
  }
  if (at->revoked_at != 0) {
    return;
  }
  at->revoked_at = now;
  at->reason = reason.substr(0, 200);
  revoke_certificate(members, *at, now);
  ++members.version;
  publish(members, now);
}

}  // namespace kamerton::privacy
