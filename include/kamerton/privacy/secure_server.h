// SPDX-License-Identifier: Apache-2.0
// The coordinator's side of one round of secure aggregation, as a state machine without transport.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kamerton/privacy/mask_plan.h"
#include "kamerton/privacy/secure_message.h"

namespace kamerton::privacy {

enum class SecureStage { Adverts, Shares, Uploads, Votes, Reveals };

/// A pure function of the messages accepted and the stages closed, in that order: writing them to a
/// log and replaying it restores the machine. accept() refuses a wrong message with ErrorKind::Data
/// or Permission, naming the site; the machine is unharmed. true: counted; false: the same message
/// again. A site that misses a stage has dropped out and is refused later; close_*() throws
/// ErrorKind::NoProgress when too few sites are left for the round (nothing is revealed then).
class SecureServer {
 public:
  explicit SecureServer(const SecureRound& round);
  ~SecureServer();
  SecureServer(SecureServer&&) noexcept;
  SecureServer& operator=(SecureServer&&) noexcept;

  SecureStage stage() const noexcept;
  const SecureRound& round() const noexcept;
  /// Sites that may still speak in this stage: those heard and those awaited, ascending.
  std::vector<uint32_t> expected() const;
  /// Sites heard in this stage, ascending.
  std::vector<uint32_t> heard() const;
  /// Whether the stage may be closed with what has been heard.
  bool enough() const;

  bool accept(const KeyAdvert& advert);
  const KeyBook& close_adverts();
  const KeyBook& book() const;  ///< after close_adverts

  bool accept(const ShareBundle& bundle);
  void close_shares();
  ShareDelivery delivery(uint32_t site) const;  ///< after close_shares

  /// The site's whole masked vector has arrived (and lies in the sum).
  bool uploaded(uint32_t site);
  const SurvivorList& close_uploads();
  const SurvivorList& survivors() const;  ///< after close_uploads

  bool accept(const ConsistencyVote& vote);
  const VoteBook& close_votes();
  const VoteBook& votes() const;  ///< after close_votes

  bool accept(const Reveal& reveal);
  /// What to apply to the sum of the survivors' masked vectors to get the plain sum. Rebuilds every
  /// secret and checks it against what its site published. Throws ErrorKind::NoProgress when shares
  /// are missing.
  MaskPlan unmask() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::privacy
