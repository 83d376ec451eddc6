// SPDX-License-Identifier: Apache-2.0
// The certificate authority of a federation: a folder with its key, its certificate, the roster and
// the open invitations.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/privacy/certificate.h"
#include "kamerton/privacy/roster.h"

namespace kamerton::privacy {

/// authority.key (0600), authority.pem, roster.json (signed), revoked.pem (the CRL), invites.json
/// (digests of tokens only). Changes are locked and atomic; any number of processes may look.
class Authority {
 public:
  /// Makes the folder and its key. Throws ErrorKind::Output when there is one already.
  static Authority create(const std::filesystem::path& folder,
                          const std::string& federation,
                          int64_t now,
                          int64_t days = 3650);
  static Authority open(const std::filesystem::path& folder);

  const std::string& federation() const noexcept { return federation_; }
  const std::string& certificate() const noexcept { return certificate_; }  ///< PEM
  const PublicKey& public_key() const noexcept { return key_.public_key(); }

  /// A token that lets its bearer become `name` with `role`, once, until `expires`. The token is
  /// shown once; the folder keeps its digest.
  std::string invite(const std::string& name, Role role, int64_t now, int64_t expires);
  /// Issues the certificate for the request if the token is good for it (name and role as invited,
  /// not used, not expired) and marks the token as used, in that order of durability: used first.
  /// Throws ErrorKind::Permission.
  std::string join(std::string_view token, std::string_view request, int64_t now, int64_t days);
  /// Issues without a token: the operator's own decision.
  std::string issue(std::string_view request, int64_t now, int64_t days);
  /// A new certificate for a member whose old one is valid and not revoked; the request must be for
  /// the same name and role. proof: the old key's signature under "renew" over the request. The old
  /// certificate stays good until it expires, unless the key changed: then it is revoked.
  std::string renew(std::string_view old_certificate,
                    std::string_view request,
                    const Signature& proof,
                    int64_t now,
                    int64_t days);
  /// Takes effect for every reader of the roster and the CRL at once.
  void revoke(const std::string& name, const std::string& reason, int64_t now);

  Roster roster() const;
  std::string revocation_list() const;  ///< PEM CRL

 private:
  Authority(std::filesystem::path folder, SigningKey key)
      : folder_(std::move(folder)), key_(std::move(key)) {}
  std::string sign_request(const RequestInfo& request, int64_t now, int64_t days);
  void publish(const Roster& roster, int64_t now) const;

  std::filesystem::path folder_;
  SigningKey key_;
  std::string federation_;
  std::string certificate_;
};

/// What an invitation says to its bearer: which authority to trust. Throws ErrorKind::Data.
struct InviteToken {
  Secret secret;
  std::string authority;  ///< fingerprint of the authority's key: pin it before anything is sent
};
InviteToken read_token(std::string_view token);

}  // namespace kamerton::privacy
