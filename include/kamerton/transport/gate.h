// SPDX-License-Identifier: Apache-2.0
// Who may speak: certificates checked against the authority and the roster, at every call, so that
// a revocation needs no restart.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "kamerton/privacy/secure_round.h"
#include "kamerton/transport/identity.h"

namespace kamerton::transport {

/// For the coordinator: sites in force in the roster of the authority's folder, which is read again
/// when it changes.
Admit admit_sites(const std::filesystem::path& authority_folder);

/// Number and key of a site in that roster, as masked rounds need them.
std::function<privacy::SecureSite(const std::string&)> members_of(
    const std::filesystem::path& authority_folder);

/// For a site: the coordinator, by its certificate alone.
Admit admit_coordinator(const std::filesystem::path& authority_certificate);

}  // namespace kamerton::transport
