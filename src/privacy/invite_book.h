// SPDX-License-Identifier: Apache-2.0
// Open invitations of an authority: digests of tokens, never the tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kamerton/privacy/certificate.h"

namespace kamerton::privacy {

struct Invite {
  std::string token_digest;
  std::string name;
  Role role = Role::Site;
  int64_t expires = 0;
  int64_t used_at = 0;
};

std::string invites_to_text(const std::vector<Invite>& invites);
std::vector<Invite> invites_from_text(std::string_view text);

std::string token_text(const Secret& secret, const std::string& authority_fingerprint);
std::string token_digest(const Secret& secret);

}  // namespace kamerton::privacy
