// SPDX-License-Identifier: Apache-2.0
// X.509 certificates of a federation (OpenSSL): Ed25519 keys, the member's name as common name, its
// role as organizational unit, the federation as organization.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "kamerton/privacy/keys.h"

namespace kamerton::privacy {

enum class Role { Authority, Coordinator, Site, Auditor };
std::string_view name_of(Role role) noexcept;  ///< "authority", "coordinator", "site", "auditor"
Role role_named(std::string_view name);        ///< throws ErrorKind::Data

struct CertificateInfo {
  std::string name;
  Role role = Role::Site;
  std::string federation;
  PublicKey key = {};  ///< Ed25519
  std::string serial;  ///< hexadecimal
  std::string
      fingerprint;  ///< of the public key: BLAKE2b-256 over its SubjectPublicKeyInfo, hexadecimal
  int64_t not_before = 0;  ///< seconds since 1970
  int64_t not_after = 0;
};

/// Letters, digits, '.', '-' and '_', 1 to 64 of them, beginning with a letter or digit: what may
/// be a member's or a federation's name. Throws ErrorKind::Config.
void check_member_name(std::string_view name);

/// Reads one PEM certificate. Throws ErrorKind::Data: not a certificate, more than 64 KiB, not an
/// Ed25519 key, no name, role or federation.
CertificateInfo read_certificate(std::string_view pem);

/// Checks `pem` against the authority's certificate at time `now`: signature, validity of both,
/// same federation, the authority's own role. Throws ErrorKind::Permission naming what is wrong.
CertificateInfo verify_certificate(std::string_view pem,
                                   std::string_view authority_pem,
                                   int64_t now);

/// PKCS #8 PEM of a signing key, as TLS libraries read it.
std::string key_to_pem(const SigningKey& key);
SigningKey key_from_pem(std::string_view pem);
/// Made at the site and never sent: writes mode 0600 atomically; refuses to replace
/// (ErrorKind::Output).
SigningKey make_key_file(const std::filesystem::path& path, RandomSource& random = system_random());
/// Throws ErrorKind::Permission when others than the owner can read the file.
SigningKey read_key_file(const std::filesystem::path& path);

/// A PKCS #10 request signed with `key`.
std::string make_request(const SigningKey& key,
                         const std::string& name,
                         Role role,
                         const std::string& federation);
struct RequestInfo {
  std::string name;
  Role role = Role::Site;
  std::string federation;
  PublicKey key = {};
};
/// Checks the request's own signature (proof of possession). Throws ErrorKind::Data.
RequestInfo read_request(std::string_view pem);

}  // namespace kamerton::privacy
