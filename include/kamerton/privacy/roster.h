// SPDX-License-Identifier: Apache-2.0
// Who belongs to a federation now: signed by its authority, checked at every call.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/privacy/certificate.h"
#include "kamerton/storage/digest.h"

namespace kamerton::privacy {

struct Member {
  uint32_t id = 0;  ///< never used again for another member
  std::string name;
  Role role = Role::Site;
  std::string fingerprint = {};  ///< of the key in force
  PublicKey key = {};
  std::string serial = {};
  int64_t not_after = 0;
  int64_t revoked_at = 0;  ///< 0: in force
  std::string reason = {};
};

/// A certificate that is no longer good: a member's earlier key, or a revoked member's.
struct RevokedCertificate {
  std::string serial;
  std::string fingerprint;
  int64_t time = 0;
};

struct Roster {
  std::string federation;
  uint64_t version =
      0;  ///< counts changes; an older one than has been seen is refused by its readers
  std::vector<Member> members;              ///< ascending id
  std::vector<RevokedCertificate> revoked;  ///< by time

  const Member* find(std::string_view name) const;
  const Member* find_key(std::string_view fingerprint) const;
  /// Throws ErrorKind::Permission: not a member, revoked, expired, another role than `role`,
  /// another key than the member's.
  const Member& admit(const CertificateInfo& certificate, Role role, int64_t now) const;

  /// JSON with the authority's signature.
  std::string to_signed_text(const SigningKey& authority) const;
  /// Throws ErrorKind::Permission when the signature is not the authority's; ErrorKind::Data for
  /// malformed text.
  static Roster from_signed_text(std::string_view text, const PublicKey& authority);
  /// Over federation and members in force, ids and keys: what a round's roster digest binds.
  storage::Digest digest() const;
};

}  // namespace kamerton::privacy
