// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/secure_site.h"

#include <sys/stat.h>

#include "kamerton/core/error.h"
#include "kamerton/privacy/secure_client.h"
#include "kamerton/storage/filesystem.h"

#include "hex.h"

namespace kamerton::federation {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMostState = uint64_t{256} << 20;

uint32_t id_of(const privacy::SecureRound& round, const std::string& name) {
  for (const privacy::SecureSite& site : round.sites) {
    if (site.name == name) {
      return site.id;
    }
  }
  throw core::Error(core::ErrorKind::Permission,
                    {.where = "federation.secure_site",
                     .what = "this site is not in the round that the coordinator sent",
                     .got = name});
}

fs::path state_file(const fs::path& folder, const privacy::SecureRound& round) {
  return folder / ("secure-" + storage::to_hex(round.digest()).substr(0, 32) + ".state");
}

}  // namespace

storage::Digest digest_from_hex(std::string_view text) {
  storage::Digest digest = {};
  if (text.empty()) {
    return digest;
  }
  const std::string bytes = from_hex(text);
  if (bytes.size() != digest.size()) {
    throw core::Error(
        core::ErrorKind::Data,
        {.where = "federation.digest", .what = "not a digest", .got = std::string(text)});
  }
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

struct SecureSite::State {
  fs::path file;
  std::optional<privacy::SecureClient> client;

  /// Atomic and for the owner's eyes.
  void save() const {
    const fs::path next = file.string() + ".next";
    const mode_t before = ::umask(0077);
    storage::posix_filesystem().write_file(next, client->state());
    ::umask(before);
    storage::posix_filesystem().rename(next, file);
    storage::posix_filesystem().sync_directory(file.parent_path());
  }
};

SecureSite::SecureSite(const fs::path& folder,
                       std::string_view round_bytes,
                       const std::string& name,
                       const privacy::SigningKey& identity,
                       const storage::Digest& model)
    : state_(new State) {
  const privacy::SecureRound round = privacy::SecureRound::decode(round_bytes);
  storage::posix_filesystem().make_directories(folder);
  state_->file = state_file(folder, round);
  if (fs::exists(state_->file)) {
    state_->client.emplace(privacy::SecureClient::resume(
        storage::posix_filesystem().read_file(state_->file, kMostState), identity));
    return;
  }
  for (const std::string& old : storage::posix_filesystem().list(folder)) {
    if (old.starts_with("secure-")) {
      fs::remove(folder / old);  // an earlier round's: its secrets are of no further use
    }
  }
  state_->client.emplace(round, id_of(round, name), identity, model);
  state_->save();
}

SecureSite::~SecureSite() = default;
SecureSite::SecureSite(SecureSite&&) noexcept = default;
SecureSite& SecureSite::operator=(SecureSite&&) noexcept = default;

bool SecureSite::knows(const fs::path& folder, std::string_view round) {
  return fs::exists(state_file(folder, privacy::SecureRound::decode(round)));
}

std::string SecureSite::advert() {
  const std::string message = state_->client->advertise().encode();
  state_->save();
  return message;
}

std::string SecureSite::shares(std::string_view key_book) {
  const std::string message = state_->client->share(privacy::KeyBook::decode(key_book)).encode();
  state_->save();
  return message;
}

void SecureSite::receive(std::string_view delivery) {
  state_->client->receive(privacy::ShareDelivery::decode(delivery));
  state_->save();
}

privacy::MaskPlan SecureSite::masks(const storage::Digest& plain_update) {
  privacy::MaskPlan plan = state_->client->masks(plain_update);
  state_->save();
  return plan;
}

std::string SecureSite::vote(std::string_view survivors) {
  const std::string message =
      state_->client->vote(privacy::SurvivorList::decode(survivors)).encode();
  state_->save();
  return message;
}

std::string SecureSite::reveal(std::string_view votes) {
  const std::string message = state_->client->reveal(privacy::VoteBook::decode(votes)).encode();
  state_->save();
  return message;
}

}  // namespace kamerton::federation
