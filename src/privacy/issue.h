// SPDX-License-Identifier: Apache-2.0
// Certificates and revocation lists, made.
#pragma once

#include <cstdint>
#include <string>

#include "kamerton/privacy/roster.h"

namespace kamerton::privacy {

/// The authority's own certificate (PEM): signed by its key, may sign certificates and CRLs only.
std::string issue_root(const SigningKey& key,
                       const std::string& federation,
                       int64_t now,
                       int64_t days,
                       RandomSource& random);

/// A member's: for TLS as server (coordinator) and client, with its name as DNS name.
std::string issue_member(const SigningKey& authority,
                         const std::string& authority_pem,
                         const RequestInfo& request,
                         int64_t now,
                         int64_t days,
                         RandomSource& random);

/// A PEM CRL of all of the roster's revoked certificates, number = its version.
std::string issue_revocations(const SigningKey& authority,
                              const std::string& authority_pem,
                              const Roster& roster,
                              int64_t now);

}  // namespace kamerton::privacy
