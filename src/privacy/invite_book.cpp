// SPDX-License-Identifier: Apache-2.0
#include "invite_book.h"

#include <nlohmann/json.hpp>

#include "kamerton/core/json.h"
#include "kamerton/privacy/authority.h"
#include "kamerton/storage/digest.h"

#include "faults.h"
#include "json_line.h"

namespace kamerton::privacy {
namespace {

constexpr std::string_view kInviteBookStart = "kamerton-invite-1.";
constexpr size_t kHex = 64;

}  // namespace

std::string invites_to_text(const std::vector<Invite>& invites) {
  core::Json list = core::Json::array();
  for (const Invite& invite : invites) {
    list.push_back({{"token_digest", invite.token_digest},
                    {"name", invite.name},
                    {"role", name_of(invite.role)},
                    {"expires", invite.expires},
                    {"used_at", invite.used_at}});
  }
  return core::Json{{"invites", std::move(list)}}.dump(1) + "\n";
}

std::vector<Invite> invites_from_text(std::string_view text) {
  const core::Json json = core::parse_json(text, "invites.json", {.max_depth = 8});
  const core::Json* list = core::json_find(json, "invites");
  if (list == nullptr || !list->is_array()) {
    bad_data("privacy.invite", "invites.json holds no list of invitations");
  }
  std::vector<Invite> invites;
  for (const core::Json& one : *list) {
    invites.push_back({core::json_string(one, "token_digest", "an invitation"),
                       core::json_string(one, "name", "an invitation"),
                       role_named(core::json_string(one, "role", "an invitation")),
                       core::json_int(one, "expires", "an invitation"),
                       core::json_int(one, "used_at", "an invitation")});
  }
  return invites;
}

std::string token_text(const Secret& secret, const std::string& authority_fingerprint) {
  return std::string(kInviteBookStart) + to_hexadecimal(secret.data(), Secret::kBytes) + "." +
         authority_fingerprint;
}

std::string token_digest(const Secret& secret) {
  const Secret digest = derive(secret, "invite", "");
  return to_hexadecimal(digest.data(), Secret::kBytes);
}

InviteToken read_token(std::string_view token) {
  if (token.size() != kInviteBookStart.size() + kHex + 1 + kHex ||
      !token.starts_with(kInviteBookStart) || token[kInviteBookStart.size() + kHex] != '.') {
    bad_data("privacy.invite", "this is not an invitation: 'kamerton-invite-1.' and two numbers");
  }
  InviteToken result;
  from_hexadecimal(token.substr(kInviteBookStart.size(), kHex),
                   result.secret.data(),
                   Secret::kBytes,
                   "an invitation");
  Secret pinned;
  result.authority = std::string(token.substr(kInviteBookStart.size() + kHex + 1));
  from_hexadecimal(result.authority, pinned.data(), Secret::kBytes, "an invitation");
  return result;
}

}  // namespace kamerton::privacy
