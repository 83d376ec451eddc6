// SPDX-License-Identifier: Apache-2.0
// A site's part of a round with masked updates: privacy::SecureClient with its state on disk, so
// that a crash at any step costs nothing and reveals nothing twice.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "kamerton/privacy/keys.h"
#include "kamerton/privacy/mask_plan.h"
#include "kamerton/storage/digest.h"

namespace kamerton::federation {

/// Stages of the exchange, numbered as on the wire.
enum class SecureStep { Advert, Shares, Survivors, Vote, Reveal };

/// One question to the coordinator: this site's message of a step ("" where it has none); the
/// answer, or nullopt while others are awaited. Throws what the coordinator refuses.
using AskSecure =
    std::function<std::optional<std::string>(SecureStep step, std::string_view message)>;

/// Every function but the constructor writes the state (mode 0600) before it returns a message.
class SecureSite {
 public:
  /// round: as the coordinator sent it (privacy::SecureRound::encode). model: digest of the model
  /// that arrived here. Goes on from `folder` when that holds this round's state. Throws as
  /// SecureClient.
  SecureSite(const std::filesystem::path& folder,
             std::string_view round,
             const std::string& name,
             const privacy::SigningKey& identity,
             const storage::Digest& model);
  ~SecureSite();
  SecureSite(SecureSite&&) noexcept;
  SecureSite& operator=(SecureSite&&) noexcept;

  /// Whether the folder holds a state of this round: the site was in it before a restart.
  static bool knows(const std::filesystem::path& folder, std::string_view round);

  std::string advert();
  std::string shares(std::string_view key_book);
  void receive(std::string_view delivery);
  /// Of the plain update's bytes; a second call with another digest is refused.
  privacy::MaskPlan masks(const storage::Digest& plain_update);
  std::string vote(std::string_view survivors);
  std::string reveal(std::string_view votes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Digest from its hexadecimal text; all zero for "" (the first round's model).
storage::Digest digest_from_hex(std::string_view text);

}  // namespace kamerton::federation
