// SPDX-License-Identifier: Apache-2.0
// A site's side of one round of secure aggregation (Bonawitz et al. 2017, active adversary; Bell et
// al. 2020), as a state machine without transport.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "kamerton/privacy/mask_plan.h"
#include "kamerton/privacy/secure_message.h"

namespace kamerton::privacy {

/// Steps: advertise -> share -> receive -> masks (-> upload) -> vote -> reveal.
///
/// The coordinator is not trusted: whatever it sends is checked, and a site never
/// - signs keys for a model other than the one that arrived,
/// - gives shares to a key that the certificate of a sampled site did not sign,
/// - hands out masks for two different inputs,
/// - votes for two lists of survivors of one round, or for one without itself or below the quorum,
/// - reveals both kinds of shares of one site: what it reveals follows from the one list it voted
/// for. Each of these is refused with ErrorKind::Permission; malformed or too few messages with
/// ErrorKind::Data. A refusal changes nothing: the right message may still follow. The same message
/// again gives the same answer; another one in its place is refused.
///
/// To survive a crash, write state() (atomically, mode 0600) before sending what a step returned,
/// and come back with resume(). A round whose state is lost must not be joined again.
class SecureClient {
 public:
  struct State;  ///< of src/privacy

  /// identity: the certificate's key; received_model: what the site itself computed over the model.
  /// Throws ErrorKind::Permission when it is not round.model or the site's own entry in the round
  /// does not carry its key; ErrorKind::Config as SecureRound::check.
  SecureClient(const SecureRound& round,
               uint32_t site,
               const SigningKey& identity,
               const storage::Digest& received_model,
               RandomSource& random = system_random());
  ~SecureClient();
  SecureClient(SecureClient&&) noexcept;
  SecureClient& operator=(SecureClient&&) noexcept;

  const KeyAdvert& advertise() const;
  const ShareBundle& share(const KeyBook& book);
  void receive(const ShareDelivery& delivery);
  /// The terms to add to the encoded input. input: a digest of that input (of all shards, in
  /// order); a second call with another digest is refused: two inputs under one mask would give
  /// away their difference.
  MaskPlan masks(const storage::Digest& input);
  const ConsistencyVote& vote(const SurvivorList& survivors);
  const Reveal& reveal(const VoteBook& book);

  /// Everything, secrets included.
  std::string state() const;
  /// Throws ErrorKind::Data for bytes that state() did not write.
  static SecureClient resume(std::string_view state,
                             const SigningKey& identity,
                             RandomSource& random = system_random());

 private:
  explicit SecureClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kamerton::privacy
